/* The cardholder's bank asks: approve or refuse, in a plain dialog. */

const LIGHT = {
  surface: '#ffffff', ink: '#15191e', muted: '#59626d', line: '#e2e5e9', field: '#8c949f',
  fill: '#15191e', onFill: '#ffffff', ring: '#0b5f8f', veil: 'rgba(21, 25, 30, 0.45)',
  shadow: '0 1px 2px rgba(21, 25, 30, 0.05), 0 8px 24px rgba(21, 25, 30, 0.12)',
};
const DARK = {
  surface: '#161a1e', ink: '#eef1f4', muted: '#a4adb7', line: '#2b3138', field: '#727c87',
  fill: '#eef1f4', onFill: '#15191e', ring: '#7cc0ea', veil: 'rgba(0, 0, 0, 0.6)',
  shadow: '0 1px 2px rgba(0, 0, 0, 0.4), 0 8px 24px rgba(0, 0, 0, 0.4)',
};
const BRAND_NAMES = {
  amex: 'American Express', diners: 'Diners Club', discover: 'Discover', jcb: 'JCB',
  mastercard: 'Mastercard', unionpay: 'UnionPay', visa: 'Visa',
};

function node(tag, style, text) {
  const element = document.createElement(tag);
  assignStyle(element.style, style);
  if (text !== undefined) element.textContent = text;
  return element;
}

function button(label, style, palette) {
  const element = node('button', {
    font: 'inherit', fontSize: '16px', fontWeight: '600', lineHeight: '24px', height: '48px',
    padding: '0 16px', margin: '0', borderRadius: '8px', border: '0', cursor: 'pointer',
    flex: '1 1 0', appearance: 'none', outlineOffset: '2px', ...style,
  }, label);
  element.type = 'button';
  element.addEventListener('focus', () => {
    if (element.matches(':focus-visible')) element.style.outline = `2px solid ${palette.ring}`;
  });
  element.addEventListener('blur', () => {
    element.style.outline = 'none';
  });
  return element;
}

function amountOf(intent) {
  const format = new Intl.NumberFormat(document.documentElement.lang || 'en', {
    style: 'currency', currency: intent.currency.toUpperCase(),
  });
  return format.format(intent.amount / 10 ** format.resolvedOptions().maximumFractionDigits);
}

/** Shows the question of the cardholder's bank; answers true when it was approved. */
function askCardholder(intent) {
  const dark = matchMedia('(prefers-color-scheme: dark)').matches;
  const palette = dark ? DARK : LIGHT;
  const paying = intent.object === 'payment_intent';
  const card = intent.next_action.use_stripe_sdk.card;
  const dialog = node('dialog', {
    boxSizing: 'border-box', width: 'calc(100% - 32px)', maxWidth: '400px', padding: '0',
    margin: 'auto', border: '0', borderRadius: '8px', overflow: 'hidden',
    background: palette.surface, color: palette.ink, boxShadow: palette.shadow,
    fontFamily: getComputedStyle(document.body).fontFamily, fontSize: '16px',
    lineHeight: '24px', textAlign: 'left', colorScheme: dark ? 'dark' : 'light',
  });
  dialog.id = `card-network-dialog-${++counter}`;
  dialog.className = 'CardNetworkDialog';
  const veil = adoptRule(`#${dialog.id}::backdrop`, { background: palette.veil });
  const title = node('h2', {
    font: 'inherit', fontSize: '16px', fontWeight: '600', lineHeight: '24px', margin: '4px 0 0',
    color: palette.ink,
  }, paying ? 'Approve this payment?' : 'Save this card?');
  title.id = `${dialog.id}-title`;
  dialog.setAttribute('aria-labelledby', title.id);
  const row = (name, value, first) => {
    const line = node('div', {
      display: 'flex', justifyContent: 'space-between', gap: '16px', padding: '12px 0',
      borderTop: first ? '0' : `1px solid ${palette.line}`,
    });
    line.append(
      node('dt', { margin: '0', color: palette.muted }, name),
      node('dd', {
        margin: '0', fontWeight: '500', fontVariantNumeric: 'tabular-nums', textAlign: 'right',
      }, value));
    return line;
  };
  const facts = node('dl', {
    margin: '16px 0 0', borderTop: `1px solid ${palette.line}`,
    borderBottom: `1px solid ${palette.line}`,
  });
  if (paying) facts.append(row('Amount', amountOf(intent), true));
  const brand = BRAND_NAMES[card.brand] || 'Card';
  facts.append(row('Card', `${brand} ending ${card.last4}`, !paying));
  const refuse = button('Refuse', {
    background: 'transparent', color: palette.ink, boxShadow: `inset 0 0 0 1px ${palette.field}`,
  }, palette);
  const approve = button('Approve', { background: palette.fill, color: palette.onFill }, palette);
  const buttons = node('div', { display: 'flex', gap: '12px', marginTop: '24px' });
  buttons.append(refuse, approve);
  const inner = node('div', { padding: '24px' });
  inner.append(
    node('p', { margin: '0', fontSize: '14px', lineHeight: '20px', color: palette.muted },
      'Local card network'),
    title, facts, buttons);
  dialog.append(inner);
  document.body.append(dialog);
  const returnTo = document.activeElement;
  return new Promise((resolve) => {
    const end = (approved) => {
      dialog.close();
      dialog.remove();
      dropRule(veil);
      returnTo?.focus?.();
      resolve(approved);
    };
    dialog.addEventListener('cancel', (event) => {
      event.preventDefault();
      end(false);
    });
    refuse.addEventListener('click', () => end(false));
    approve.addEventListener('click', () => end(true));
    dialog.showModal();
    approve.focus();
  });
}
