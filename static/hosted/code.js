// One input drawn as six cells: pastes whole, submits itself at six digits. And the pause before
// another code may be sent.
const form = document.getElementById("code-form");
const input = document.getElementById("code");
const cells = [...form.querySelectorAll(".cells i:not(.dash)")];

function draw() {
  const digits = input.value;
  cells.forEach((cell, index) => {
    cell.textContent = digits[index] ?? "";
    cell.classList.toggle("now", index === Math.min(digits.length, cells.length - 1));
  });
}

function take(text) {
  const digits = text.replace(/\D/g, "").slice(0, cells.length);
  if (input.value !== digits) input.value = digits;
  if (digits) input.removeAttribute("aria-invalid");
  draw();
  if (digits.length === cells.length && !form.dataset.sent) form.requestSubmit();
}

const toEnd = () => input.setSelectionRange(input.value.length, input.value.length);

input.addEventListener("input", () => take(input.value));
input.addEventListener("paste", (event) => {
  event.preventDefault();
  take(event.clipboardData.getData("text"));
});
input.addEventListener("focus", toEnd);
input.addEventListener("click", toEnd);
input.addEventListener("keydown", (event) => {
  if (["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "Home"].includes(event.key)) {
    event.preventDefault();
  }
});
// Digits may have come before this did, typed or filled in. Not on the way back, where the browser puts
// them in again: that would send whoever goes back on.
const [visit] = performance.getEntriesByType("navigation");
if (visit?.type === "navigate") take(input.value);
else draw();

const pause = document.querySelector("[data-wait]");
if (pause) {
  const until = performance.now() + Number(pause.dataset.wait) * 1000;
  const clock = pause.querySelector("span");
  const timer = setInterval(() => {
    const left = Math.max(Math.ceil((until - performance.now()) / 1000), 0);
    clock.textContent = `${Math.floor(left / 60)}:${String(left % 60).padStart(2, "0")}`;
    if (left === 0) {
      clearInterval(timer);
      pause.hidden = true;
      document.querySelector(".waits").classList.remove("waits");
    }
  }, 250);
}
