// Checkout on any site, without a build: opens Lava's own page in a sandboxed frame and tells the
// site how it went. It sets no cookie, loads nothing else, and listens to nobody but the page it
// opened: messages count only from that frame and from this script's own origin.
//
//   <script src="https://billing.example.com/static/checkout/embed.js"></script>
//   <button data-lava-checkout="TOKEN">Subscribe</button>
//
// or LavaCheckout.open(token, {onSuccess, onCancel, onError, locale}), which gives {close}.
// The same as DOM events, on the element it was opened from or on document, bubbling:
// "lava:success", "lava:cancel", "lava:error", with the facts in event.detail.
(() => {
  const home = new URL(document.currentScript.src).origin;
  let shown = null;

  // The official package's token: base64 of {"secret", "base"}. One of another host is refused.
  function address(token, locale) {
    let told;
    try {
      told = JSON.parse(atob(token));
    } catch {
      throw new Error("The checkout session token is not one of ours.");
    }
    if (!/^css_[0-9A-Za-z]+$/.test(told?.secret)) throw new Error("The token names no checkout.");
    const page = new URL(`embed/checkout/${told.secret}`, told.base);
    if (page.origin !== home) throw new Error(`The token is for ${page.origin}, not for ${home}.`);
    if (locale) page.searchParams.set("locale", locale);
    return page.href;
  }

  function frameOf(href) {
    const frame = document.createElement("iframe");
    frame.title = "Checkout";
    frame.referrerPolicy = "no-referrer";
    frame.setAttribute("sandbox", "allow-forms allow-scripts allow-same-origin");
    Object.assign(frame.style, {
      position: "fixed",
      inset: "0",
      width: "100%",
      height: "100%",
      border: "0",
      zIndex: "2147483647",
      colorScheme: "light dark",
    });
    frame.src = href;
    return frame;
  }

  function open(token, { onSuccess, onCancel, onError, locale, from = document } = {}) {
    const tell = (kind, facts, callback) => {
      from.dispatchEvent(new CustomEvent(`lava:${kind}`, { detail: facts, bubbles: true }));
      callback?.(facts);
    };
    shown?.close();
    let href;
    try {
      href = address(token, locale);
    } catch (error) {
      tell("error", { error: error.message }, onError);
      return { close() {} };
    }
    const frame = frameOf(href);
    const { overflow } = document.documentElement.style;
    const before = document.activeElement;

    function hear({ source, origin, data }) {
      if (source !== frame.contentWindow || origin !== home) return;
      const { checkoutSessionId, connectionId, customerId } = data ?? {};
      if (data?.type === "lava_checkout_success") {
        close();
        tell("success", { checkoutSessionId, connectionId, customerId }, onSuccess);
      } else if (data?.type === "lava_checkout_cancel") {
        close();
        tell("cancel", { checkoutSessionId }, onCancel);
      }
    }

    function close() {
      if (!frame.isConnected) return;
      removeEventListener("message", hear);
      frame.remove();
      document.documentElement.style.overflow = overflow;
      shown = null;
      before?.focus?.();
    }

    addEventListener("message", hear);
    document.documentElement.style.overflow = "hidden";
    document.body.append(frame);
    frame.addEventListener("load", () => frame.focus(), { once: true });
    shown = { close };
    return shown;
  }

  document.addEventListener("click", (event) => {
    const button = event.target.closest?.("[data-lava-checkout]");
    if (!button) return;
    event.preventDefault();
    open(button.dataset.lavaCheckout, { locale: button.dataset.locale, from: button });
  });

  window.LavaCheckout = Object.freeze({ open });
})();
