// Single keys for those who want them. Every page works without this file.
"use strict";
const form = document.getElementById("row");
const by = id => document.getElementById(id);
const questions = form ? [...form.querySelectorAll(".question")] : [];
const seen = element => element.getClientRects().length > 0;
const open = question => !question.querySelector(":checked");
let chosen = null;

const current = () => (chosen && seen(chosen) ? chosen : questions.find(q => seen(q) && open(q)));

function mark() {
  const now = current();
  questions.forEach(q => q.classList.toggle("current", q === now));
}

function answer(value) {
  const question = current();
  if (!question) return;
  question.querySelector(`[value=${value}]`).checked = true;
  chosen = null;
  mark();
  const next = current();
  (next ? next.querySelector("input") : by("next")).focus();
}

function goTo(number) {
  const question = questions.find(q => q.dataset.number === number && seen(q));
  if (!question) return;
  chosen = question;
  mark();
  (question.querySelector(":checked") || question.querySelector("input")).focus();
}

function show(on) {
  const box = by("shown");
  box.checked = on;
  if (on) form.elements.looked.value = "1";
}

function reveal() {
  const box = by("shown");
  if (!box || !seen(box)) return;
  const caption = by("caption");
  if (caption && !caption.open) caption.open = true;
  else show(!box.checked);
}

const press = id => by(id) && by(id).click();
const keys = {
  s: () => answer("safe"), u: () => answer("unsafe"), k: () => answer("skip"),
  1: () => goTo("1"), 2: () => goTo("2"), 3: () => goTo("3"),
  r: reveal, n: () => by("note") && by("note").focus(),
  z: () => by("undo") && by("undo").requestSubmit(), o: () => press("others"), h: () => press("help"),
};

document.addEventListener("keydown", event => {
  const at = document.activeElement;
  if (event.key === "Escape" && form) return show(false);
  if (document.body.dataset.keys !== "on" || event.ctrlKey || event.altKey || event.metaKey || event.repeat) return;
  if (at && at.matches("input[type=text], textarea, select")) return;
  if (event.key === "Enter") {
    if (!at || at === document.body || at.id === "main") press("next");
    return;
  }
  const act = keys[event.key.toLowerCase()];
  if (!act) return;
  event.preventDefault();
  act();
});

if (form) {
  form.addEventListener("change", event => {
    if (event.target.id === "shown") show(event.target.checked);
    chosen = null;
    mark();
  });
  let sent = false;
  form.addEventListener("submit", event => {
    if (sent) event.preventDefault();
    sent = true;
  });
  mark();
}
if (by("wrong")) by("wrong").focus();
