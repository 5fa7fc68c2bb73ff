/* Calls to the network from a page: publishable key in the form, answers never throw. */

const API = new URL(document.currentScript.src).href.replace(
  /\/(?:v3\/?|stripe\.js)(?:[?#].*)?$/, '');

function encode(params, prefix, out) {
  for (const [name, value] of Object.entries(params)) {
    const key = prefix ? `${prefix}[${name}]` : name;
    if (value === undefined || value === null) continue;
    if (typeof value === 'object') encode(value, key, out);
    else out.append(key, String(value));
  }
  return out;
}

const UNREACHABLE = {
  type: 'api_connection_error',
  message: 'The card network cannot be reached. Check the connection and try again.',
};

/** Calls the API with the publishable key; answers `{error}` or `{value}` and never throws. */
async function call(method, path, { key, account }, params) {
  const form = encode({ ...params, key, _stripe_account: account }, '', new URLSearchParams());
  const options = { method, credentials: 'omit', referrerPolicy: 'no-referrer' };
  let url = API + path;
  if (method === 'GET') url += '?' + form;
  else options.body = form;
  try {
    const response = await fetch(url, options);
    const value = await response.json();
    return response.ok ? { value } : { error: value.error };
  } catch (_) {
    return { error: UNREACHABLE };
  }
}
