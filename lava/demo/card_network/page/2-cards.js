/* What a card's number, expiry, code and postal code look like, and what is wrong with them. */

const BRANDS = [
  { name: 'amex', pattern: /^3[47]/, lengths: [15], groups: [4, 6, 5], cvc: 4 },
  { name: 'diners', pattern: /^3(?:0[0-5]|[689])/, lengths: [14, 16], groups: [4, 4, 4, 4] },
  { name: 'jcb', pattern: /^35(?:2[89]|[3-8])/, lengths: [16] },
  { name: 'discover', pattern: /^6(?:011|5|4[4-9])/, lengths: [16] },
  { name: 'unionpay', pattern: /^62/, lengths: [16, 17, 18, 19], groups: [4, 4, 4, 4, 3] },
  {
    name: 'mastercard',
    pattern: /^(?:5[1-5]|222[1-9]|22[3-9]|2[3-6]|27[01]|2720)/,
    lengths: [16],
  },
  { name: 'visa', pattern: /^4/, lengths: [16] },
];
const UNKNOWN = { name: 'unknown', lengths: [16] };

const brandOf = (digits) => BRANDS.find((brand) => brand.pattern.test(digits)) || UNKNOWN;
const digitsOf = (text) => text.replace(/\D/g, '');

function luhn(digits) {
  let total = 0;
  [...digits].reverse().forEach((digit, position) => {
    const value = Number(digit) * (position % 2 ? 2 : 1);
    total += value > 9 ? value - 9 : value;
  });
  return total % 10 === 0;
}

const problem = (code, message) => ({ type: 'validation_error', code, message });

/*
 * One entry a kind of field: how it looks to the browser, how its text is formatted, and what is
 * wrong with it. `check(text, done)` answers {complete, error}; `done` says that the field was left,
 * so that "incomplete" is only said then.
 */
const KINDS = {
  cardNumber: {
    placeholder: '1234 1234 1234 1234',
    autocomplete: 'cc-number',
    numeric: true,
    format(text) {
      let digits = digitsOf(text);
      const brand = brandOf(digits);
      digits = digits.slice(0, Math.max(...brand.lengths));
      const parts = [];
      for (const size of brand.groups || [4, 4, 4, 4]) {
        if (digits) parts.push(digits.slice(0, size));
        digits = digits.slice(size);
      }
      return parts.join(' ');
    },
    check(text, done) {
      const digits = digitsOf(text);
      const brand = brandOf(digits);
      if (brand.lengths.includes(digits.length)) {
        if (luhn(digits)) return { complete: true };
        if (digits.length === Math.max(...brand.lengths) || done) {
          return { error: problem('invalid_number', 'Your card number is invalid.') };
        }
      }
      return done && digits
        ? { error: problem('incomplete_number', 'Your card number is incomplete.') } : {};
    },
    missing: problem('incomplete_number', 'Your card number is incomplete.'),
  },
  cardExpiry: {
    placeholder: 'MM / YY',
    autocomplete: 'cc-exp',
    numeric: true,
    format(text, deleting) {
      let digits = digitsOf(text);
      if (digits.length === 6) digits = digits.slice(0, 2) + digits.slice(4);
      if (/^[2-9]/.test(digits) || /^\d\s*\/\s*/.test(text)) digits = '0' + digits;
      digits = digits.slice(0, 4);
      if (digits.length > 2) return `${digits.slice(0, 2)} / ${digits.slice(2)}`;
      return digits.length === 2 && !deleting ? `${digits} / ` : digits;
    },
    check(text, done) {
      const digits = digitsOf(text);
      const month = Number(digits.slice(0, 2));
      if (digits.length >= 2 && (month < 1 || month > 12)) {
        return {
          error: problem('invalid_expiry_month', "Your card's expiration month is invalid."),
        };
      }
      if (digits.length < 4) {
        return done && digits
          ? { error: problem('incomplete_expiry', "Your card's expiration date is incomplete.") }
          : {};
      }
      const now = new Date();
      const year = 2000 + Number(digits.slice(2));
      if (year < now.getFullYear()) {
        return {
          error: problem(
            'invalid_expiry_year_past', "Your card's expiration year is in the past."),
        };
      }
      if (year === now.getFullYear() && month < now.getMonth() + 1) {
        return {
          error: problem(
            'invalid_expiry_month_past', "Your card's expiration date is in the past."),
        };
      }
      return { complete: true };
    },
    missing: problem('incomplete_expiry', "Your card's expiration date is incomplete."),
  },
  cardCvc: {
    placeholder: 'CVC',
    autocomplete: 'cc-csc',
    numeric: true,
    format(text, _, cvcLength) {
      return digitsOf(text).slice(0, cvcLength());
    },
    check(text, done, cvcLength) {
      const length = digitsOf(text).length;
      if (length === 3 || length === cvcLength()) return { complete: true };
      return done && length
        ? { error: problem('incomplete_cvc', "Your card's security code is incomplete.") } : {};
    },
    missing: problem('incomplete_cvc', "Your card's security code is incomplete."),
  },
  postalCode: {
    placeholder: 'ZIP',
    autocomplete: 'postal-code',
    numeric: false,
    format(text) {
      return text.slice(0, 12);
    },
    // The test cards are American: five digits; a code with letters is some other country's.
    check(text, done) {
      const code = text.trim();
      if (/^\d+$/.test(code) ? code.length >= 5 : code.length >= 3) return { complete: true };
      return done && code
        ? { error: problem('incomplete_zip', 'Your postal code is incomplete.') } : {};
    },
    missing: problem('incomplete_zip', 'Your postal code is incomplete.'),
  },
};
