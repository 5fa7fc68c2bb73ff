/* Stripe(publishableKey): elements, confirmation, 3-D Secure. What a page sees. */

const FAMILIES = {
  payment_intents: { result: 'paymentIntent', failure: 'last_payment_error' },
  setup_intents: { result: 'setupIntent', failure: 'last_setup_error' },
};

function readSecret(clientSecret) {
  const match = /^((pi|seti)_[A-Za-z0-9]+)_secret_[A-Za-z0-9]+$/.exec(String(clientSecret));
  if (!match) {
    throw new Error('Invalid value for a client secret: value should be of the form ' +
      '${id}_secret_${secret}.');
  }
  return { id: match[1], family: match[2] === 'pi' ? 'payment_intents' : 'setup_intents' };
}

class StripeInstance {
  constructor(key, options) {
    if (!/^pk_(test|live)_/.test(String(key))) {
      throw new Error('Please call Stripe() with your publishable key. You used something else.');
    }
    this._key = { key, account: options?.stripeAccount };
    this._locale = options?.locale;
  }

  elements(options) {
    return new Elements(options, this._locale);
  }

  confirmPayment(options) {
    return this._confirmWith('payment_intents', options);
  }

  confirmSetup(options) {
    return this._confirmWith('setup_intents', options);
  }

  /** `confirmPayment` and `confirmSetup`: with a Payment Element, or with a saved card's id. */
  async _confirmWith(family, { elements, clientSecret, confirmParams = {}, redirect }) {
    if (redirect !== 'if_required' || !confirmParams.return_url) {
      throw new Error("Cards need no redirect: pass redirect 'if_required', and a return_url.");
    }
    const { payment_method_data: given, ...params } = confirmParams;
    if (elements) {
      const { value, error } = await this._ask(clientSecret);
      const wrong = error || elements.misfit(value);
      if (wrong) return { error: wrong };
      const billing = { ...given?.billing_details };
      for (const name of ['name', 'email']) {
        if (!billing[name]) {
          throw new Error(`You specified "never" for fields.billing_details.${name}: pass it in ` +
            'confirmParams.payment_method_data.billing_details.');
        }
      }
      const read = elements.read();
      if (read.error) return { error: read.error };
      if (read.postalCode) billing.address = { postal_code: read.postalCode, ...billing.address };
      params.payment_method_data = { type: 'card', card: read.card, billing_details: billing };
    }
    return this._send(clientSecret, family, params);
  }

  async _send(clientSecret, family, params) {
    const secret = readSecret(clientSecret);
    if (secret.family !== family) throw new Error('The secret is of another kind of intent.');
    const path = `/v1/${family}/${secret.id}/confirm`;
    const { value, error } = await call('POST', path, this._key, {
      ...params, client_secret: clientSecret, use_stripe_sdk: true,
    });
    if (error) return { error };
    return this._act(clientSecret, value);
  }

  /** Takes an intent through 3-D Secure if it asks for it. */
  async _act(clientSecret, intent) {
    const { id, family } = readSecret(clientSecret);
    const { result, failure } = FAMILIES[family];
    if (intent.status !== 'requires_action') return { [result]: intent };
    const approved = await askCardholder(intent);
    const { value, error } = await call('POST', `/_3ds/${id}`, this._key, {
      client_secret: clientSecret,
      source: intent.next_action.use_stripe_sdk.source,
      outcome: approved ? 'approve' : 'refuse',
    });
    if (error) return { error };
    if (value[failure]) {
      const name = intent.object;
      return { error: { ...value[failure], [name]: value } };
    }
    return { [result]: value };
  }

  _ask(clientSecret) {
    const { id, family } = readSecret(clientSecret);
    return call('GET', `/v1/${family}/${id}`, this._key, { client_secret: clientSecret });
  }
}

function Stripe(key, options) {
  return new StripeInstance(key, options);
}
Stripe.version = 3;
window.Stripe = Stripe;
