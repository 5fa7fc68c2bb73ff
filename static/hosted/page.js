// Every checkout page: tell the page around the frame how it went, and send each form once.
const { origin, session, connection, completed, page, again } = document.body.dataset;

// A browser gives no focus by itself in a frame of another site.
document.querySelector("[data-focus]")?.focus();

// This page answers a form. Reloaded, or come back to, it is asked for anew and posts nothing.
if (page) history.replaceState(null, "", page);

// Something is under way elsewhere: look again.
if (again) setTimeout(() => window.location.replace(window.location.href), Number(again) * 1000);

function tell(type, more = {}) {
  // The frame's parent is named exactly; without an origin there is nobody to tell.
  if (origin && window.parent !== window) {
    window.parent.postMessage({ type, checkoutSessionId: session, ...more }, origin);
  }
}

const finish = () =>
  tell("lava_checkout_success", { connectionId: connection, customerId: connection });

if (completed !== undefined) finish();

document.addEventListener("click", (event) => {
  const target = event.target instanceof Element ? event.target : null;
  if (target?.closest("[data-finish]")) finish();
  // Closing after it is done is no cancellation.
  if (target?.closest("[data-close]")) completed === undefined ? tell("lava_checkout_cancel") : finish();
});

document.addEventListener("submit", (event) => {
  if (event.defaultPrevented) return;
  if (event.target.dataset.sent) {
    event.preventDefault();
    return;
  }
  event.target.dataset.sent = "yes";
  const button = event.submitter ?? event.target.querySelector(".button");
  button?.setAttribute("aria-disabled", "true");
  const label = button?.querySelector("span");
  if (button?.dataset.busy && label) label.textContent = button.dataset.busy;
});

// Back from the history: the form may be sent again.
window.addEventListener("pageshow", (event) => {
  if (event.persisted) window.location.reload();
});
