"use strict";

// A form with data-passkey asks the browser for a passkey ("get") or makes one
// ("create") before it is sent. What the server wants is in data-options; the
// answer goes into the field "passkey".
(() => {
  const decode = (text) => {
    const base64 = text.replace(/-/g, "+").replace(/_/g, "/");
    return Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
  };
  const encode = (buffer) => {
    let text = "";
    for (const byte of new Uint8Array(buffer)) text += String.fromCharCode(byte);
    return btoa(text).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
  };
  const ids = (list) => (list || []).map((c) => ({ ...c, id: decode(c.id) }));

  const ask = async (kind, { publicKey }) => {
    publicKey.challenge = decode(publicKey.challenge);
    if (kind === "get") {
      publicKey.allowCredentials = ids(publicKey.allowCredentials);
      return navigator.credentials.get({ publicKey });
    }
    publicKey.user.id = decode(publicKey.user.id);
    publicKey.excludeCredentials = ids(publicKey.excludeCredentials);
    return navigator.credentials.create({ publicKey });
  };

  const answer = (credential) => {
    const response = {};
    for (const name of ["clientDataJSON", "attestationObject", "authenticatorData", "signature", "userHandle"]) {
      if (credential.response[name]) response[name] = encode(credential.response[name]);
    }
    if (credential.response.getTransports) response.transports = credential.response.getTransports();
    return JSON.stringify({
      id: credential.id, rawId: encode(credential.rawId), type: credential.type, response,
      authenticatorAttachment: credential.authenticatorAttachment || undefined,
      clientExtensionResults: credential.getClientExtensionResults(),
    });
  };

  if (!window.PublicKeyCredential) return;
  for (const form of document.querySelectorAll("form[data-passkey]")) {
    form.hidden = false;
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      const problem = form.querySelector("[data-problem]");
      problem.hidden = true;
      try {
        const credential = await ask(form.dataset.passkey, JSON.parse(form.dataset.options));
        form.elements.passkey.value = answer(credential);
        form.submit();
      } catch {
        problem.hidden = false;
        problem.focus();
      }
    });
  }
})();
