// A merchant's own page: opens checkout with the official package and shows what it was told.
import React from 'react';
import {createRoot} from 'react-dom/client';
import {useLavaCheckout} from '@lavapayments/checkout';

function Page() {
  const [told, setTold] = React.useState('waiting');
  const {open} = useLavaCheckout({
    onSuccess: (facts) => setTold(`success ${facts.checkoutSessionId} ${facts.connectionId}`),
    onCancel: (facts) => setTold(`cancelled ${facts.checkoutSessionId}`),
    onError: (facts) => setTold(`error ${facts.error}`),
  });
  const token = new URLSearchParams(window.location.search).get('token');
  return (
    <main>
      <p id="told">{told}</p>
      <button onClick={() => open(token)}>Subscribe</button>
    </main>
  );
}

createRoot(document.getElementById('root')).render(<Page />);
