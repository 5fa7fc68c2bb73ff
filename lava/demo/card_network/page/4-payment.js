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
    this._options = options || {};
    this._listeners = new Map();
    this._cells = [];
    this._sent = '';
    this._root = node('div');
    const country = this._options.defaultValues?.billingDetails?.address?.country;
    const address = this._options.fields?.billingDetails?.address;
    const kinds = ['cardNumber', 'cardExpiry', 'cardCvc'];
    if (address !== 'never' && WITH_POSTAL_CODE.includes(country)) kinds.push('postalCode');
    const labels = LABELS[group.locale] || LABELS.en;
    for (const kind of kinds) {
      this._add(kind, kind === 'postalCode' && country === 'US' ? labels.zip : labels[kind]);
    }
    this.dress();
  }

  _add(kind, text) {
    const box = node('div');
    const field = this._group.add(kind, { ariaLabel: text });
    const label = node('label', {}, text);
    label.htmlFor = field.inputId;
    const said = node('p');
    said.id = `${field.inputId}-problem`;
    said.hidden = true;
    box.setAttribute('aria-describedby', said.id);
    const cell = { kind, box, label, said, field, whole: node('div') };
    cell.whole.append(label, box, said);
    this._root.append(cell.whole);
    field.on('change', (event) => this._changed(cell, event));
    field.on('focus', () => this._moved(cell, 'focus'));
    field.on('blur', () => this._moved(cell, 'blur'));
    field.on('escape', () => this._emit('escape'));
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
    for (const cell of this._cells) cell.field.mount(cell.box);
    setTimeout(() => this._emit('ready'), 0);
    return this;
  }

  unmount() {
    for (const cell of this._cells) cell.field.unmount();
    this._root.remove();
    return this;
  }

  destroy() {
    this.unmount();
    for (const cell of this._cells) cell.field.destroy();
    this._listeners.clear();
    this._group.forgetPayment();
    return this;
  }

  on(name, handler) {
    if (!this._listeners.has(name)) this._listeners.set(name, new Set());
    this._listeners.get(name).add(handler);
    return this;
  }

  off(name, handler) {
    if (handler) this._listeners.get(name)?.delete(handler);
    else this._listeners.delete(name);
    return this;
  }

  focus() {
    this._cells[0].field.focus();
  }

  update(options) {
    this._options = { ...this._options, ...options };
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
      cell.field.update({
        style: {
          base: {
            color: theme.colorText, fontFamily: theme.fontFamily, fontSize: theme.fontSizeBase,
            lineHeight: rules['.Input']?.lineHeight || '1.5', fontSmoothing: 'antialiased',
            '::placeholder': { color: theme.colorTextPlaceholder },
          },
        },
      });
      this._box(cell);
    }
  }

  _box(cell) {
    const { _theme: theme, _rules: rules } = this;
    const focused = cell.focused ? {
      outline: `2px solid ${theme.colorPrimary}`, outlineOffset: '-2px',
      boxShadow: theme.focusBoxShadow || 'none', ...rules['.Input:focus'],
    } : { outline: 'none', boxShadow: 'none' };
    assignStyle(cell.box.style, {
      boxSizing: 'border-box', padding: '12px', border: `1px solid ${theme.colorTextPlaceholder}`,
      borderRadius: theme.borderRadius, background: theme.colorBackground, cursor: 'text',
      ...rules['.Input'], lineHeight: 'normal', ...focused,
      ...(cell.error ? { borderColor: theme.colorDanger, ...rules['.Input--invalid'] } : {}),
    });
  }

  // What happens to it

  _moved(cell, name) {
    cell.focused = name === 'focus';
    this._box(cell);
    this._emit(name);
  }

  _changed(cell, event) {
    cell.complete = event.complete;
    cell.empty = event.empty;
    this._say(cell, event.error);
    const value = {
      complete: this._cells.every((each) => each.complete),
      empty: this._cells.every((each) => each.empty !== false),
      collapsed: false,
      value: { type: 'card' },
    };
    const seen = JSON.stringify(value);
    if (seen !== this._sent) {
      this._sent = seen;
      this._emit('change', value);
    }
  }

  _say(cell, error) {
    cell.error = error;
    cell.said.textContent = error ? PROBLEMS[this._group.locale]?.[error.code] || error.message : '';
    cell.said.hidden = !error;
    this._box(cell);
  }

  /** The last check: says what is missing, leads to the first of it, and gives that error. */
  finish() {
    let first;
    for (const cell of this._cells) {
      const error = cell.field.finish();
      this._say(cell, error);
      if (error && !first) first = { cell, error };
    }
    first?.cell.field.focus();
    return first && { ...first.error, message: first.cell.said.textContent };
  }

  _emit(name, event) {
    const told = { elementType: 'payment', ...event };
    for (const handler of [...(this._listeners.get(name) || [])]) handler(told);
  }
}
