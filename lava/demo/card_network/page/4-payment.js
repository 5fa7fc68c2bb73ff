/* The Payment Element: the fields of a card as one, labelled, dressed by `appearance`, each saying
   what is wrong with it in the page's language. Stripe's own is a frame; this one is the page's. */

const LABELS = {
  en: {
    cardNumber: 'Card number', cardExpiry: 'Expiration date', cardCvc: 'Security code',
    postalCode: 'Postal code', zip: 'ZIP code',
  },
  de: {
    cardNumber: 'Kartennummer', cardExpiry: 'Ablaufdatum', cardCvc: 'Prüfziffer',
    postalCode: 'Postleitzahl', zip: 'Postleitzahl',
  },
  es: {
    cardNumber: 'Número de tarjeta', cardExpiry: 'Caducidad',
    cardCvc: 'Código CVC', postalCode: 'Código postal', zip: 'Código postal',
  },
};
// In English a field says what the API says.
const PROBLEMS = {
  de: {
    incomplete_number: 'Die Kartennummer ist unvollständig.',
    invalid_number: 'Die Kartennummer ist ungültig.',
    incomplete_expiry: 'Das Ablaufdatum ist unvollständig.',
    invalid_expiry_month: 'Der Ablaufmonat ist ungültig.',
    invalid_expiry_month_past: 'Das Ablaufdatum liegt in der Vergangenheit.',
    invalid_expiry_year_past: 'Das Ablaufjahr liegt in der Vergangenheit.',
    incomplete_cvc: 'Die Prüfziffer ist unvollständig.',
    incomplete_zip: 'Die Postleitzahl ist unvollständig.',
  },
  es: {
    incomplete_number: 'El número de tarjeta está incompleto.',
    invalid_number: 'El número de tarjeta no es válido.',
    incomplete_expiry: 'La fecha de caducidad está incompleta.',
    invalid_expiry_month: 'El mes de caducidad no es válido.',
    invalid_expiry_month_past: 'La fecha de caducidad ya ha pasado.',
    invalid_expiry_year_past: 'El año de caducidad ya ha pasado.',
    incomplete_cvc: 'El código CVC está incompleto.',
    incomplete_zip: 'El código postal está incompleto.',
  },
};
// Where Stripe asks a card for its postal code.
const WITH_POSTAL_CODE = ['US', 'CA', 'GB'];
const THEME = {
  colorPrimary: '#0570de', colorBackground: '#ffffff', colorText: '#30313d', colorDanger: '#df1b41',
  colorTextPlaceholder: '#757680', fontFamily: 'system-ui, sans-serif', fontSizeBase: '16px',
  borderRadius: '6px', spacingUnit: '4px',
};

class PaymentField {
  constructor(group, options) {
    this._group = group;
    this._listeners = new Map();
    this._cells = [];
    this._sent = '';
    this._root = node('div');
    const country = options?.defaultValues?.billingDetails?.address?.country;
    const address = options?.fields?.billingDetails?.address;
    const kinds = ['cardNumber', 'cardExpiry', 'cardCvc'];
    if (address !== 'never' && WITH_POSTAL_CODE.includes(country)) kinds.push('postalCode');
    const labels = LABELS[group.locale] || LABELS.en;
    for (const kind of kinds) {
      this._add(kind, kind === 'postalCode' && country === 'US' ? labels.zip : labels[kind]);
    }
    this.dress();
  }

  _add(kind, text) {
    const cell = { kind, whole: node('div'), label: node('label', {}, text), box: node('div') };
    cell.field = new CardField(kind, {
      heard: (name) => (name === 'change' ? this._changed(cell) : this._moved(cell, name)),
      cvcLength: () => this._cvcLength(),
    });
    const { input } = cell.field;
    cell.said = node('p');
    cell.said.id = `${input.id}-problem`;
    cell.said.hidden = true;
    cell.label.htmlFor = input.id;
    input.setAttribute('aria-describedby', cell.said.id);
    cell.box.append(input);
    cell.box.addEventListener('click', () => input.focus());
    cell.whole.append(cell.label, cell.box, cell.said);
    this._root.append(cell.whole);
    this._cells.push(cell);
  }

  // The interface of the element

  mount(target) {
    const container = typeof target === 'string' ? document.querySelector(target) : target;
    if (!container) {
      throw new Error(`The selector you specified (${target}) applies to no DOM elements that ` +
        'are currently on the page. Make sure the element exists on the page before calling mount().');
    }
    container.replaceChildren(this._root);
    setTimeout(() => this._emit('ready'), 0);
    return this;
  }

  on(name, handler) {
    if (!this._listeners.has(name)) this._listeners.set(name, new Set());
    this._listeners.get(name).add(handler);
    return this;
  }

  // How it looks

  /** Lays the group's `appearance` over the fields: variables, and the rules of inputs and labels. */
  dress() {
    const { variables, rules = {} } = this._group.appearance;
    const theme = { ...THEME, ...variables };
    this._theme = theme;
    this._rules = rules;
    const unit = theme.spacingUnit;
    assignStyle(this._root.style, {
      display: 'grid', gridTemplateColumns: `repeat(${this._cells.length - 1}, minmax(0, 1fr))`,
      columnGap: `calc(${unit} * 4)`, rowGap: `calc(${unit} * 4)`, alignItems: 'start',
      fontFamily: theme.fontFamily, fontSize: theme.fontSizeBase, color: theme.colorText,
    });
    for (const cell of this._cells) {
      if (cell.kind === 'cardNumber') cell.whole.style.gridColumn = '1 / -1';
      assignStyle(cell.label.style, {
        display: 'block', marginBottom: unit, color: theme.colorText, whiteSpace: 'nowrap',
        overflow: 'hidden', textOverflow: 'ellipsis', ...rules['.Label'],
      });
      assignStyle(cell.said.style, {
        marginTop: `calc(${unit} * 2)`, color: theme.colorDanger, ...rules['.Error'],
      });
      this._box(cell);
    }
  }

  _box(cell) {
    const { _theme: theme, _rules: rules } = this;
    const { error } = cell.field;
    const focused = cell.focused ? {
      outline: `2px solid ${theme.colorPrimary}`, outlineOffset: '-2px',
      boxShadow: theme.focusBoxShadow || 'none', ...rules['.Input:focus'],
    } : { outline: 'none', boxShadow: 'none' };
    assignStyle(cell.box.style, {
      boxSizing: 'border-box', padding: '12px', border: `1px solid ${theme.colorTextPlaceholder}`,
      borderRadius: theme.borderRadius, background: theme.colorBackground, cursor: 'text',
      ...rules['.Input'], lineHeight: 'normal', ...focused,
      ...(error ? { borderColor: theme.colorDanger, ...rules['.Input--invalid'] } : {}),
    });
    cell.field.dress({
      color: (error && rules['.Input--invalid']?.color) || theme.colorText,
      fontFamily: theme.fontFamily, fontSize: theme.fontSizeBase,
      lineHeight: rules['.Input']?.lineHeight || '1.5', fontSmoothing: 'antialiased',
    }, theme.colorTextPlaceholder);
  }

  // What happens to it

  _moved(cell, name) {
    cell.focused = name === 'focus';
    this._box(cell);
    this._emit(name);
  }

  _changed(cell) {
    if (cell.kind === 'cardNumber') this._numberChanged();
    this._say(cell);
    const value = {
      complete: this._cells.every(({ field }) => field.complete),
      empty: this._cells.every(({ field }) => !field.value),
      collapsed: false,
      value: { type: 'card' },
    };
    const seen = JSON.stringify(value);
    if (seen !== this._sent) {
      this._sent = seen;
      this._emit('change', value);
    }
  }

  _numberChanged() {
    const code = this._field('cardCvc');
    if (code?.value) code.check();
  }

  _say(cell) {
    const { error } = cell.field;
    cell.said.textContent = error ? PROBLEMS[this._group.locale]?.[error.code] || error.message : '';
    cell.said.hidden = !error;
    this._box(cell);
  }

  /** The last check: says what is missing, leads to the first of it, and gives that error. */
  finish() {
    const wrong = this._cells.filter((cell) => cell.field.finish());
    wrong[0]?.field.input.focus();
    return wrong[0] && { ...wrong[0].field.error, message: wrong[0].said.textContent };
  }

  /** {error} of the first field that is not complete, else the card's details and postal code. */
  read() {
    const error = this.finish();
    if (error) return { error };
    const text = (kind) => this._field(kind)?.value || '';
    const expiry = digitsOf(text('cardExpiry'));
    return {
      card: {
        number: digitsOf(text('cardNumber')),
        exp_month: expiry.slice(0, 2),
        exp_year: expiry.slice(2),
        cvc: digitsOf(text('cardCvc')),
      },
      postalCode: text('postalCode').trim() || undefined,
    };
  }

  _field(kind) {
    return this._cells.find((cell) => cell.kind === kind)?.field;
  }

  _cvcLength() {
    const number = digitsOf(this._field('cardNumber').value);
    return brandOf(number).cvc || (number ? 3 : 4);
  }

  _emit(name, event) {
    const told = { elementType: 'payment', ...event };
    for (const handler of [...(this._listeners.get(name) || [])]) handler(told);
  }
}

class Elements {
  constructor(options, locale) {
    this._options = options || {};
    this._payment = null;
    this._submitted = false;
    this.locale = this._options.locale || locale || 'en';
    this._check();
  }

  create(kind, options) {
    if (kind !== 'payment') throw new Error(`The local card network has no element '${kind}'.`);
    if (this._payment) throw new Error('Can only create one Element of type payment.');
    this._payment = new PaymentField(this, options);
    return this._payment;
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

  read() {
    return this._payment.read();
  }
}
