// The card: Stripe's fields in our boxes, one payment at a time. What a card was charged is decided
// by the server alone; this page only says which card, and shows what the server answers.
const form = document.getElementById("pay-form");
const button = document.getElementById("pay");
const label = button.querySelector("span");
const action = label.textContent;
const alertBox = document.getElementById("alert");
const dark = matchMedia("(prefers-color-scheme: dark)");

const PAUSE_MS = 2000;
const MOST_LOOKS = 30;
// What this page says by itself, in the customer's language.
const words = form.dataset;
const AWAY = { title: words.awayTitle, text: words.away };

const parts = {
  cardNumber: { box: "card-number", problem: "card-number-problem", missing: words.missingNumber },
  cardExpiry: { box: "card-expiry", problem: "card-part-problem", missing: words.missingExpiry },
  cardCvc: { box: "card-cvc", problem: "card-part-problem", missing: words.missingCvc },
};

let stripe = null;
let busy = false;

const usesNewCard = () => form.elements.card?.value !== "saved";
const value = (name) => form.elements[name]?.value.trim() ?? "";

function styles() {
  const tokens = getComputedStyle(document.documentElement);
  const token = (name) => tokens.getPropertyValue(name).trim();
  return {
    base: {
      color: token("--ink"),
      fontFamily: "Inter, system-ui, sans-serif",
      fontSize: "16px",
      lineHeight: "22px",
      fontSmoothing: "antialiased",
      "::placeholder": { color: token("--muted") },
    },
    invalid: { color: token("--ink") },
  };
}

async function loaded() {
  for (let look = 0; look < 300 && !window.Stripe; look += 1) {
    await new Promise((done) => setTimeout(done, 50));
  }
  return window.Stripe;
}

async function mount() {
  const Stripe = await loaded();
  if (!Stripe) {
    warn({ title: words.unloadedTitle, text: words.unloaded });
    return;
  }
  const account = form.dataset.account;
  stripe = Stripe(form.dataset.key, {
    locale: words.locale,
    ...(account ? { stripeAccount: account } : {}),
  });
  const elements = stripe.elements({
    fonts: [{ cssSrc: new URL(form.dataset.fonts, window.location.href).href }],
  });
  for (const [kind, part] of Object.entries(parts)) {
    const options = { style: styles() };
    if (kind === "cardNumber") options.disableLink = true;
    part.element = elements.create(kind, options);
    part.element.mount(`#${part.box}`);
    const box = document.getElementById(part.box);
    box.addEventListener("click", () => part.element.focus());
    part.element.on("focus", () => box.classList.add("focused"));
    part.element.on("blur", () => box.classList.remove("focused"));
    part.element.on("change", (event) => changed(kind, event));
  }
  dark.addEventListener("change", () => {
    for (const part of Object.values(parts)) part.element.update({ style: styles() });
  });
}

function changed(kind, event) {
  const part = parts[kind];
  part.complete = event.complete;
  part.error = event.error?.message ?? "";
  showPart(kind);
  if (kind === "cardNumber") {
    const image = document.getElementById("card-brand");
    image.src = image.dataset[event.brand] ?? image.dataset.unknown;
  }
}

function showPart(kind) {
  const part = parts[kind];
  document.getElementById(part.box).classList.toggle("invalid", Boolean(part.error));
  const problem = document.getElementById(part.problem);
  const others = Object.values(parts).filter((other) => other.problem === part.problem);
  problem.textContent = others.map((other) => other.error).find(Boolean) ?? "";
  problem.hidden = !problem.textContent;
}

function cardIsComplete() {
  let first = null;
  for (const [kind, part] of Object.entries(parts)) {
    if (!part.complete) {
      part.error ||= part.missing;
      showPart(kind);
      first ??= part;
    }
  }
  first?.element.focus();
  return first === null;
}

function warn({ title, text }) {
  alertBox.querySelector("b").textContent = title;
  alertBox.querySelector("span").textContent = text;
  alertBox.hidden = false;
  alertBox.focus();
}

function mark(problems) {
  let first = null;
  for (const name of ["name", "email"]) {
    const field = form.elements[name];
    const problem = document.getElementById(`${name}-problem`);
    if (!field) continue;
    const text = problems[name] ?? "";
    problem.textContent = text;
    problem.hidden = !text;
    if (text) {
      field.setAttribute("aria-invalid", "true");
      field.setAttribute("aria-describedby", problem.id);
      first ??= field;
    } else {
      field.removeAttribute("aria-invalid");
    }
  }
  first?.focus();
  return first !== null;
}

function missing() {
  const found = {};
  for (const name of ["name", "email"]) {
    const field = form.elements[name];
    if (field && !field.value.trim()) found[name] = field.dataset.missing;
  }
  return found;
}

function setBusy(on) {
  busy = on;
  button.setAttribute("aria-disabled", String(on));
  label.textContent = on ? button.dataset.busy : action;
  document.getElementById("status").textContent = on ? button.dataset.busy : "";
}

const goOn = () => window.location.replace(form.dataset.page);

async function ask(url, options) {
  const answer = await fetch(url, {
    method: "POST",
    credentials: "omit",
    referrerPolicy: "no-referrer",
    ...options,
    headers: { Accept: "application/json", ...options.headers },
  });
  return answer.json();
}

const begin = () =>
  ask(form.dataset.pay, {
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({
      nonce: value("nonce"),
      name: value("name"),
      email: value("email"),
      card: usesNewCard() ? "new" : "saved",
    }),
  });

const complete = () => ask(form.action, { body: new URLSearchParams(new FormData(form)) });

function confirm(intent) {
  const details = { name: intent.name, email: intent.email };
  const postal = document.getElementById("postal").value.trim();
  if (postal) details.address = { postal_code: postal };
  const card = { card: parts.cardNumber.element, billing_details: details };
  const method = { payment_method: usesNewCard() ? card : intent.payment_method };
  return intent.kind === "setup"
    ? stripe.confirmCardSetup(intent.client_secret, method)
    : stripe.confirmCardPayment(intent.client_secret, method);
}

// Gives true when the page goes on to another one.
async function pay() {
  const intent = await begin();
  if (intent.reload) return goOn(), true;
  if (mark(intent.problems ?? {})) return false;
  if (!intent.client_secret) return warn(intent), false;

  const result = await confirm(intent);
  if (result.error?.type === "validation_error") return cardIsComplete(), false;

  for (let look = 0; look < MOST_LOOKS; look += 1) {
    const outcome = await complete();
    if (outcome.reload) break;
    if (outcome.status === "waiting") {
      await new Promise((done) => setTimeout(done, PAUSE_MS));
    } else if (outcome.title) {
      if (usesNewCard()) document.getElementById("card-number").classList.add("invalid");
      return warn(outcome), false;
    } else {
      break;
    }
  }
  return goOn(), true;
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  if (busy || !stripe) return;
  alertBox.hidden = true;
  if (mark(missing())) return;
  if (usesNewCard() && !cardIsComplete()) return;
  setBusy(true);
  let left = false;
  try {
    left = await pay();
  } catch {
    warn(AWAY);
  } finally {
    if (!left) setBusy(false);
  }
});

mount();
