"""What flows between stages and what people write: models, Arrow schemas, the taxonomy."""
