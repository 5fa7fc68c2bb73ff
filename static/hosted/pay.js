// The card: Stripe's Payment Element in our box, one payment at a time. What a card was charged is
// decided by the server alone; this page only says which card, and shows what the server answers.
const form = document.getElementById("pay-form");
const button = document.getElementById("pay");
const label = button.querySelector("span");
const action = label.textContent;
const alertBox = document.getElementById("alert");
// Until here a press would send the form itself, without a card.
button.disabled = false;
const dark = matchMedia("(prefers-color-scheme: dark)");

const PAUSE_MS = 2000;
const MOST_LOOKS = 30;
// What this page says by itself, in the customer's language.
const words = form.dataset;
const AWAY = { title: words.awayTitle, text: words.away };
const UNLOADED = { title: words.unloadedTitle, text: words.unloaded };

let stripe = null;
let elements = null;
let busy = false;

const usesNewCard = () => form.elements.card?.value !== "saved";
const value = (name) => form.elements[name]?.value.trim() ?? "";

// What the element is for. The intent is made when the button is pressed, and must be of the same.
const purpose = ({ kind, amount, currency }) => ({
  mode: kind,
  currency,
  ...(kind === "payment" ? { amount: Number(amount) } : {}),
  setupFutureUsage: "off_session",
});

// The page's tokens, as Stripe's fields take them.
function appearance() {
  const tokens = getComputedStyle(document.documentElement);
  const token = (name) => tokens.getPropertyValue(name).trim();
  return {
    theme: dark.matches ? "night" : "stripe",
    labels: "above",
    variables: {
      colorPrimary: token("--accent"),
      colorBackground: token("--surface"),
      colorText: token("--ink"),
      colorTextSecondary: token("--muted"),
      colorTextPlaceholder: token("--muted"),
      colorDanger: token("--bad"),
      iconColor: token("--muted"),
      focusBoxShadow: `0 0 0 4px ${token("--ring")}`,
      fontFamily: "Inter, system-ui, sans-serif",
      fontSizeBase: "16px",
      fontWeightNormal: "400",
      fontWeightMedium: "500",
      spacingUnit: "4px",
      gridColumnSpacing: "16px",
      gridRowSpacing: "16px",
      borderRadius: token("--radius"),
    },
    rules: {
      ".Input": {
        border: `1px solid ${token("--field")}`,
        boxShadow: "none",
        padding: "11px 12px",
        lineHeight: "24px",
      },
      ".Input:focus": {
        borderColor: token("--accent"),
        boxShadow: `inset 0 0 0 1px ${token("--accent")}, 0 0 0 4px ${token("--ring")}`,
      },
      ".Input--invalid": { borderColor: token("--bad"), boxShadow: "none", color: token("--ink") },
      ".Label": { fontSize: "14px", lineHeight: "20px", fontWeight: "500", marginBottom: "8px" },
      ".Error": { fontSize: "14px", lineHeight: "20px", marginTop: "8px" },
    },
  };
}

async function loaded() {
  for (let look = 0; look < 300 && !window.Stripe; look += 1) {
    await new Promise((done) => setTimeout(done, 50));
  }
  return window.Stripe;
}

// Gives whether the fields are there.
async function mount() {
  const Stripe = await loaded();
  if (!Stripe) return warn(UNLOADED), false;
  const { account, country, wallets } = words;
  stripe = Stripe(words.key, { locale: words.locale, ...(account ? { stripeAccount: account } : {}) });
  elements = stripe.elements({
    ...purpose(words),
    allowedPaymentMethodTypes: ["card"],
    fonts: [{ cssSrc: new URL(words.fonts, window.location.href).href }],
    appearance: appearance(),
  });
  const element = elements.create("payment", {
    layout: { type: "tabs" },
    // Asked above; what is agreed to stands beside the button.
    fields: { billingDetails: { name: "never", email: "never" } },
    terms: { card: "never" },
    wallets: { applePay: wallets, googlePay: wallets, link: "never" },
    defaultValues: { billingDetails: { address: { country } } },
  });
  element.on("loaderror", () => warn(UNLOADED));
  element.mount("#card-fields");
  dark.addEventListener("change", () => elements.update({ appearance: appearance() }));
  return true;
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
  const billing = { name: intent.name, email: intent.email };
  const card = usesNewCard()
    ? { payment_method_data: { billing_details: billing } }
    : { payment_method: intent.payment_method };
  const options = {
    ...(usesNewCard() ? { elements } : {}),
    clientSecret: intent.client_secret,
    confirmParams: { return_url: new URL(words.page, window.location.href).href, ...card },
    redirect: "if_required",
  };
  return intent.kind === "setup" ? stripe.confirmSetup(options) : stripe.confirmPayment(options);
}

// Gives whether a new card is filled in; its fields say themselves what is not.
const cardIsFilledIn = async () => !usesNewCard() || !(await elements.submit()).error;

// Where the amount is another one than when the page was shown, the fields are told.
async function suits(intent) {
  if (!usesNewCard() || intent.kind === "setup") return true;
  if (String(intent.amount) === words.amount && intent.currency === words.currency) return true;
  elements.update(purpose(intent));
  return cardIsFilledIn();
}

// Gives true when the page goes on to another one.
async function pay() {
  if (!(await mounted)) return warn(UNLOADED), false;
  if (!(await cardIsFilledIn())) return false;
  const intent = await begin();
  if (intent.reload) return goOn(), true;
  if (mark(intent.problems ?? {})) return false;
  if (!intent.client_secret) return warn(intent), false;

  if (!(await suits(intent))) return false;
  const result = await confirm(intent);
  if (result.error?.type === "validation_error") return false;

  for (let look = 0; look < MOST_LOOKS; look += 1) {
    const outcome = await complete();
    if (outcome.reload) break;
    if (outcome.status === "waiting") {
      await new Promise((done) => setTimeout(done, PAUSE_MS));
    } else if (outcome.title) {
      return warn(outcome), false;
    } else {
      break;
    }
  }
  return goOn(), true;
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  if (busy) return;
  alertBox.hidden = true;
  if (mark(missing())) return;
  // Also before Stripe's script is there: whoever was quick waits for it with the button.
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

const mounted = mount();
