/* The split card elements, and the group that any elements are of: real inputs, Stripe's classes and events, styles through the CSSOM. */

const CLASSES = {
  base: 'StripeElement',
  complete: 'StripeElement--complete',
  empty: 'StripeElement--empty',
  focus: 'StripeElement--focus',
  invalid: 'StripeElement--invalid',
  webkitAutofill: 'StripeElement--webkit-autofill',
};
// What js.stripe.com's own inputs look like before any `style`; a page's input rules must not show.
const PLAIN = {
  appearance: 'none', background: 'transparent', border: '0', borderRadius: '0',
  boxShadow: 'none', boxSizing: 'border-box', color: '#000', display: 'block',
  fontFamily: 'sans-serif', fontSize: '16px', fontStyle: 'normal', fontVariant: 'normal',
  fontWeight: '400', height: 'auto', letterSpacing: 'normal', lineHeight: '1.2em', margin: '0',
  maxWidth: 'none', minHeight: '0', minWidth: '0', opacity: '1', outline: 'none', padding: '0',
  textAlign: 'start', textShadow: 'none', textTransform: 'none', transition: 'none',
  width: '100%',
};
let counter = 0;

function assignStyle(target, values) {
  for (const [name, value] of Object.entries(values || {})) {
    if (name.startsWith(':') || typeof value === 'object' || name === 'iconColor') continue;
    target[name === 'fontSmoothing' ? 'webkitFontSmoothing' : name] = value;
  }
}

/** Rules that have no place in el.style (::placeholder, autofill), as a constructed sheet. */
function adoptSheet(selector, pseudo) {
  try {
    const sheet = new CSSStyleSheet();
    for (const [name, values] of Object.entries(pseudo)) {
      const index = sheet.insertRule(`${selector}${name} {}`, sheet.cssRules.length);
      assignStyle(sheet.cssRules[index].style, values);
    }
    document.adoptedStyleSheets = [...document.adoptedStyleSheets, sheet];
    return sheet;
  } catch (_) {
    return null; // an old browser: the placeholder keeps the browser's own grey
  }
}

class CardField {
  constructor(group, kind, options) {
    this._group = group;
    this._kind = KINDS[kind];
    this._type = kind;
    this._options = { ...options };
    this._listeners = new Map();
    this._container = null;
    this._left = false;
    this._error = undefined;
    this._sent = '';
    this._makeInput();
  }

  _makeInput() {
    const input = document.createElement('input');
    const kind = this._kind;
    input.type = 'text';
    input.id = `card-network-field-${++counter}`; // no name: a form never sends it anywhere
    input.className = 'InputElement';
    input.setAttribute('autocomplete', kind.autocomplete);
    input.setAttribute('autocorrect', 'off');
    input.setAttribute('autocapitalize', 'none');
    input.setAttribute('spellcheck', 'false');
    if (kind.numeric) input.setAttribute('inputmode', 'numeric');
    input.addEventListener('input', (event) => this._typed(event));
    input.addEventListener('focus', () => this._focused());
    input.addEventListener('blur', () => this._blurred());
    input.addEventListener('keydown', (event) => {
      if (event.key === 'Escape') this._emit('escape', { elementType: this._type });
    });
    this._input = input;
  }

  // The interface of a Stripe element

  mount(target) {
    const container = typeof target === 'string' ? document.querySelector(target) : target;
    if (!container) {
      throw new Error(`The selector you specified (${target}) applies to no DOM elements that ` +
        'are currently on the page. Make sure the element exists on the page before calling mount().');
    }
    if (this._container === container) return this;
    this.unmount();
    this._container = container;
    container.replaceChildren(this._input);
    this._label();
    this._onContainer = (event) => {
      if (event.target !== this._input) this.focus();
    };
    container.addEventListener('click', this._onContainer);
    this._dress();
    this._showState();
    setTimeout(() => this._emit('ready', { elementType: this._type }), 0);
    return this;
  }

  unmount() {
    const container = this._container;
    if (!container) return this;
    container.removeEventListener('click', this._onContainer);
    for (const label of this._labels) label.removeEventListener('click', this._onLabel);
    this._container = null; // first, for removing a focused input blurs it
    this._input.remove();
    container.classList.remove(...Object.values(this._classes()));
    return this;
  }

  destroy() {
    this._listeners.clear();
    this.unmount();
    document.adoptedStyleSheets = document.adoptedStyleSheets.filter((s) => s !== this._sheet);
    this._group.forget(this);
    return this;
  }

  on(name, handler) {
    if (!this._listeners.has(name)) this._listeners.set(name, new Set());
    this._listeners.get(name).add(handler);
    return this;
  }

  once(name, handler) {
    const wrapped = (event) => {
      this.off(name, wrapped);
      handler(event);
    };
    return this.on(name, wrapped);
  }

  off(name, handler) {
    if (handler) this._listeners.get(name)?.delete(handler);
    else this._listeners.delete(name);
    return this;
  }

  focus() {
    this._input.focus();
  }

  blur() {
    this._input.blur();
  }

  clear() {
    this._input.value = '';
    this._left = false;
    this._error = undefined;
    this._changed();
  }

  update(options) {
    this._options = { ...this._options, ...options };
    this._label();
    this._dress();
    this._showState();
    return this;
  }

  // How it looks

  _classes() {
    return { ...CLASSES, ...this._options.classes };
  }

  _label() {
    const input = this._input;
    const id = this._container?.id;
    for (const label of this._labels || []) label.removeEventListener('click', this._onLabel);
    this._labels = id ? [...document.querySelectorAll(`label[for="${CSS.escape(id)}"]`)] : [];
    this._onLabel = () => this.focus();
    for (const label of this._labels) label.addEventListener('click', this._onLabel);
    const pointed = (this._container?.getAttribute('aria-labelledby') || '').split(/\s+/)
      .map((name) => name && document.getElementById(name)).filter(Boolean);
    const text = this._options.ariaLabel || this._container?.getAttribute('aria-label') ||
      [...pointed, ...this._labels].map((node) => node.textContent.trim()).join(' ') ||
      this._kind.label;
    input.setAttribute('aria-label', text);
    input.placeholder = this._options.placeholder ?? this._kind.placeholder;
    input.disabled = Boolean(this._options.disabled);
    const described = this._container?.getAttribute('aria-describedby');
    if (described) input.setAttribute('aria-describedby', described);
    else input.removeAttribute('aria-describedby');
  }

  /** Lays `style.base` and its variants over the plain input, in Stripe's order. */
  _dress() {
    const style = this._options.style || {};
    const layers = [style.base];
    if (!this._input.value) layers.push(style.empty);
    if (this._complete) layers.push(style.complete);
    if (this._error) layers.push(style.invalid);
    assignStyle(this._input.style, PLAIN);
    for (const layer of layers) assignStyle(this._input.style, layer);
    if (document.activeElement === this._input) {
      for (const layer of layers) assignStyle(this._input.style, layer?.[':focus']);
    }
    this._dressPseudo(layers.filter(Boolean));
  }

  _dressPseudo(layers) {
    const pseudo = { '::placeholder': { color: '#757575', opacity: '1' } };
    for (const layer of layers) {
      for (const [name, values] of Object.entries(layer)) {
        if (name.startsWith(':') && name !== ':focus') {
          pseudo[name] = { ...pseudo[name], ...values };
        }
      }
    }
    const wanted = JSON.stringify(pseudo);
    if (wanted === this._pseudo) return;
    this._pseudo = wanted;
    document.adoptedStyleSheets = document.adoptedStyleSheets.filter((s) => s !== this._sheet);
    this._sheet = adoptSheet(`#${this._input.id}`, pseudo);
  }

  _showState() {
    this._input.setAttribute('aria-invalid', String(Boolean(this._error)));
    if (!this._container) return;
    const names = this._classes();
    const list = this._container.classList;
    list.add(names.base);
    list.toggle(names.empty, !this._input.value);
    list.toggle(names.complete, Boolean(this._complete));
    list.toggle(names.invalid, Boolean(this._error));
    list.toggle(names.focus, document.activeElement === this._input);
  }

  // What happens to it

  _typed(event) {
    const input = this._input;
    const deleting = (event.inputType || '').startsWith('delete');
    const before = input.value.slice(0, input.selectionStart ?? input.value.length);
    const atEnd = before.length === input.value.length;
    const kept = this._kind.numeric ? digitsOf(before).length : before.length;
    const text = this._kind.format(input.value, deleting, this._group);
    if (text !== input.value) {
      input.value = text;
      let caret = text.length;
      if (!atEnd && this._kind.numeric) {
        caret = 0;
        for (let digits = 0; caret < text.length && digits < kept; caret += 1) {
          if (/\d/.test(text[caret])) digits += 1;
        }
      } else if (!atEnd) {
        caret = kept;
      }
      input.setSelectionRange(caret, caret);
    }
    this._left = false;
    this._changed();
  }

  _focused() {
    this._showState();
    this._dress();
    this._emit('focus', { elementType: this._type });
  }

  _blurred() {
    this._left = true;
    this._changed();
    this._showState();
    this._dress();
    this._emit('blur', { elementType: this._type });
  }

  /** Checks the text again, and says so when something that a page can see has changed. */
  _changed() {
    const { complete, error } = this._kind.check(this._input.value, this._left, this._group);
    this._complete = Boolean(complete);
    this._error = error;
    const event = {
      elementType: this._type,
      empty: !this._input.value,
      complete: this._complete,
      error,
    };
    if (this._type === 'cardNumber') {
      event.brand = brandOf(digitsOf(this._input.value)).name;
      this._group.numberChanged();
    }
    this._showState();
    this._dress();
    const seen = JSON.stringify([event.empty, event.complete, error, event.brand]);
    if (seen !== this._sent) {
      this._sent = seen;
      this._emit('change', event);
    }
  }

  /** The last check before the details are sent: empty counts as incomplete. */
  finish() {
    this._left = true;
    this._changed();
    if (this._complete) return undefined;
    this._error = this._error || this._kind.missing;
    this._showState();
    this._dress();
    return this._error;
  }

  get value() {
    return this._input.value;
  }

  get inputId() {
    return this._input.id;
  }

  get group() {
    return this._group;
  }

  _emit(name, event) {
    for (const handler of [...(this._listeners.get(name) || [])]) handler(event);
  }
}

class Elements {
  constructor(options, locale) {
    this._options = options || {};
    this._locale = this._options.locale || locale || 'en';
    this._fields = new Map();
    this._payment = null;
    this._submitted = false;
    this._check();
  }

  create(kind, options) {
    if (kind === 'payment') return this._createPayment(options);
    if (!KINDS[kind]) {
      throw new Error(`The local card network has no element '${kind}'; it has payment, ` +
        `${Object.keys(KINDS).join(', ')}.`);
    }
    return this.add(kind, options);
  }

  add(kind, options) {
    if (this._fields.has(kind)) {
      throw new Error(`Can only create one Element of type ${kind}.`);
    }
    const field = new CardField(this, kind, options);
    this._fields.set(kind, field);
    return field;
  }

  _createPayment(options) {
    if (!this._options.mode) {
      throw new Error('The local card network makes a Payment Element without an intent: pass ' +
        '`mode` to elements().');
    }
    if (this._payment) throw new Error('Can only create one Element of type payment.');
    this._payment = new PaymentField(this, options);
    return this._payment;
  }

  getElement(kind) {
    return (kind === 'payment' ? this._payment : this._fields.get(kind)) || null;
  }

  update(options) {
    this._options = { ...this._options, ...options };
    this._submitted = false;
    this._check();
    if (options.appearance) this._payment?.dress();
  }

  /** What Stripe refuses when elements are made without an intent. */
  _check() {
    const { mode, amount, currency } = this._options;
    if (!mode) return;
    // docs.stripe.com/changelog/endive/2026-09-30: taken away from elements too.
    if ('paymentMethodTypes' in this._options) {
      throw new Error('paymentMethodTypes is no longer supported; use allowedPaymentMethodTypes.');
    }
    if (!['payment', 'setup'].includes(mode)) throw new Error(`mode '${mode}' is not modelled here.`);
    if (mode === 'payment' && !(Number.isInteger(amount) && amount > 0)) {
      throw new Error('Invalid value for elements(): amount must be greater than 0.');
    }
    if (mode === 'payment' && !/^[a-z]{3}$/.test(String(currency))) {
      throw new Error('Invalid value for elements(): currency must be a code in lower case.');
    }
  }

  get appearance() {
    return this._options.appearance || {};
  }

  get locale() {
    return this._locale;
  }

  /** Checks what was entered; must come before a confirmation. */
  async submit() {
    const error = this._payment?.finish();
    this._submitted = !error;
    return error ? { error } : { selectedPaymentMethod: 'card' };
  }

  /** Throws or gives an error where Stripe would: not submitted, or made for something else. */
  misfit(intent) {
    if (!this._submitted) {
      throw new Error('elements.submit() must be called before the payment is confirmed.');
    }
    const { mode, amount, currency, setupFutureUsage = null } = this._options;
    const paying = intent.object === 'payment_intent';
    const differs = [
      ['mode', mode, paying ? 'payment' : 'setup'],
      ...(paying ? [
        ['amount', amount, intent.amount],
        ['currency', currency, intent.currency],
        ['setup_future_usage', setupFutureUsage, intent.setup_future_usage],
      ] : []),
    ].find(([, told, is]) => told !== is);
    return differs && {
      type: 'invalid_request_error',
      message: `The intent's ${differs[0]} (${differs[2]}) is not what elements() was told ` +
        `(${differs[1]}).`,
    };
  }

  forgetPayment() {
    this._payment = null;
  }

  async fetchUpdates() {
    return {};
  }

  forget(field) {
    for (const [kind, known] of this._fields) if (known === field) this._fields.delete(kind);
  }

  cvcLength() {
    const number = this._fields.get('cardNumber');
    return (number && brandOf(digitsOf(number.value)).cvc) || (number?.value ? 3 : 4);
  }

  numberChanged() {
    const cvc = this._fields.get('cardCvc');
    if (cvc && cvc.value) cvc._changed();
  }

  /** {error} for the first field that is not complete, else the card's details and postal code. */
  read() {
    const errors = [...this._fields.values()].map((field) => field.finish()).filter(Boolean);
    if (errors.length) return { error: errors[0] };
    const text = (kind) => this._fields.get(kind)?.value || '';
    const expiry = digitsOf(text('cardExpiry'));
    return {
      card: {
        number: digitsOf(text('cardNumber')),
        exp_month: expiry.slice(0, 2),
        exp_year: expiry.slice(2),
        cvc: digitsOf(text('cardCvc')) || undefined,
      },
      postalCode: text('postalCode').trim() || undefined,
    };
  }
}
