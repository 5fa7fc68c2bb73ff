/* One field of a card: a real input that formats and checks what is typed into it. */

// What js.stripe.com's own inputs look like before any style; a page's input rules must not show.
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
    target[name === 'fontSmoothing' ? 'webkitFontSmoothing' : name] = value;
  }
}

/** What has no place in el.style (::placeholder, ::backdrop): a constructed sheet, which a CSP lets
    be. */
function adoptRule(selector, style) {
  const sheet = new CSSStyleSheet();
  sheet.insertRule(`${selector} {}`);
  assignStyle(sheet.cssRules[0].style, style);
  document.adoptedStyleSheets = [...document.adoptedStyleSheets, sheet];
  return sheet;
}

function dropRule(sheet) {
  document.adoptedStyleSheets = document.adoptedStyleSheets.filter((known) => known !== sheet);
}

class CardField {
  /** `heard` is told of 'change', 'focus' and 'blur'; `cvcLength` says how long the code may be. */
  constructor(kind, { heard, cvcLength }) {
    this._kind = KINDS[kind];
    this._heard = heard;
    this._cvcLength = cvcLength;
    this._left = false;
    this.complete = false;
    this.error = undefined;
    this.input = this._makeInput();
  }

  _makeInput() {
    const input = document.createElement('input');
    const kind = this._kind;
    input.type = 'text';
    input.id = `card-network-field-${++counter}`; // no name: a form never sends it anywhere
    input.className = 'InputElement';
    input.placeholder = kind.placeholder;
    input.setAttribute('autocomplete', kind.autocomplete);
    input.setAttribute('autocorrect', 'off');
    input.setAttribute('autocapitalize', 'none');
    input.setAttribute('spellcheck', 'false');
    if (kind.numeric) input.setAttribute('inputmode', 'numeric');
    input.addEventListener('input', (event) => this._typed(event));
    input.addEventListener('focus', () => this._heard('focus'));
    input.addEventListener('blur', () => {
      this._left = true;
      this.check();
      this._heard('blur');
    });
    return input;
  }

  get value() {
    return this.input.value;
  }

  dress(look, placeholder) {
    assignStyle(this.input.style, { ...PLAIN, ...look });
    if (placeholder === this._placeholder) return;
    this._placeholder = placeholder;
    dropRule(this._sheet);
    const style = { color: placeholder, opacity: '1' };
    this._sheet = adoptRule(`#${this.input.id}::placeholder`, style);
  }

  _typed(event) {
    const input = this.input;
    const deleting = (event.inputType || '').startsWith('delete');
    const before = input.value.slice(0, input.selectionStart ?? input.value.length);
    const atEnd = before.length === input.value.length;
    const kept = this._kind.numeric ? digitsOf(before).length : before.length;
    const text = this._kind.format(input.value, deleting, this._cvcLength);
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
    this.check();
  }

  /** Looks at the text again. */
  check() {
    const { complete, error } = this._kind.check(this.value, this._left, this._cvcLength);
    this._found(Boolean(complete), error);
  }

  /** The last check before the details are sent: empty counts as incomplete. Gives what is wrong. */
  finish() {
    this._left = true;
    this.check();
    if (!this.complete) this._found(false, this.error || this._kind.missing);
    return this.error;
  }

  _found(complete, error) {
    this.complete = complete;
    this.error = error;
    this.input.setAttribute('aria-invalid', String(Boolean(error)));
    this._heard('change');
  }
}
