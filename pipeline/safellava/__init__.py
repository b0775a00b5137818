"""SafeLLaVA: a LLaVA that reads an image's safety off one learnable token, and writes text as before.

After arXiv 2506.04704, whose training code is not published. The modules import torch and transformers, so
this package imports none of them: `holisafe --help` stays quick.
"""
