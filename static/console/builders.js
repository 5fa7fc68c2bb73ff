/* The builders' forms: rows that come and go, fields that fold, figures from the server.
   Every form works without this file; nothing here computes money. */

const forms = document.querySelectorAll("form[data-builder]");

function value(form, name) {
  const field = form.elements.namedItem(name);
  if (!field) return "";
  if (field.type === "checkbox") return field.checked && !field.disabled ? field.value : "";
  return field.value;
}

/* Whether a choice is made: "kind=tiers|rate unit=tokens_1m, with_flats=on"; a space is and, a
   comma is or. */
function chosen(form, when) {
  return when.split(",").some((all) =>
    all.trim().split(" ").every((one) => {
      const [name, wanted] = one.split("=");
      return wanted.split("|").includes(value(form, name));
    }),
  );
}

/* Fields that belong to a choice. Those under data-drop are not sent while they are folded away;
   the others keep what was typed for when the choice comes back. */
function fold(form) {
  const only = document.querySelector('input[name="kind"][value="kinds"]');
  if (only?.checked && value(form, "unit") !== "tokens_1m") {
    form.querySelector('input[name="kind"][value="rate"]').checked = true;
  }
  for (const part of document.querySelectorAll("[data-when][data-drop]")) {
    part.hidden = !chosen(form, part.dataset.when);
  }
  for (const field of document.querySelectorAll("[data-drop] input")) {
    field.disabled = field.closest("[data-drop][hidden]") !== null;
  }
  for (const part of document.querySelectorAll("[data-when]:not([data-drop])")) {
    part.hidden = !chosen(form, part.dataset.when);
  }
}

let counter = 1000;

function addRow(form, kind) {
  const box = form.querySelector(`[data-rows="${kind}"]`);
  const source = form.querySelector(`template[data-template="${kind}"]`);
  const holder = document.createElement("template");
  counter += 1;
  holder.innerHTML = source.innerHTML.replaceAll("__n__", String(counter));
  const row = holder.content.firstElementChild;
  box.append(row);
  dress(form);
  const first = row.querySelector("input:not([type=hidden])");
  if (first) first.focus();
}

/* What a row shows beside its fields. */
function dress(form) {
  for (const button of form.querySelectorAll("[data-add]")) button.hidden = false;
  fold(form);
  const bundles = form.querySelectorAll('[data-rows="bundle"] > [data-row]');
  const none = form.querySelector("[data-no-rows]");
  if (none) {
    const shown = [...bundles].filter((row) => !row.hasAttribute("data-removed"));
    none.hidden = shown.length > 0;
    form.querySelector('[data-rows="bundle"]').toggleAttribute("data-empty", shown.length === 0);
  }
  for (const row of bundles) saving(row);
  tiers(form);
}

/* The share a buyer saves; the server says the same when the form is saved. */
function saving(row) {
  const read = (name) => Number(row.querySelector(`[name$="-${name}"]`).value.replaceAll(",", ""));
  const [cost, credit] = [read("cost"), read("credit")];
  const text = cost > 0 && credit > cost ? `${(((credit - cost) * 100) / credit).toFixed(1)} %` : "none";
  row.querySelector("[data-saving]").textContent = text;
}

function tiers(form) {
  const box = form.querySelector('[data-rows="tier"]');
  if (!box) return;
  const words = JSON.parse(document.getElementById("cb-words").textContent);
  const word = words[value(form, "unit")] || words.tokens_1m;
  const kind = value(form, "kind");
  const share = kind === "percent" || (kind === "tiers" && value(form, "tier_rate_type") === "percentage");
  box.dataset.kind = kind;
  const rows = [...box.querySelectorAll(":scope > [data-row]")];
  rows.forEach((row, place) => {
    row.hidden = kind !== "tiers" && place > 0;
    row.querySelector("[data-number]").textContent = String(place + 1);
    row.querySelector('[name$="-start"]').setAttribute("aria-label", `Start of tier ${place + 1}`);
    row.querySelector('[name$="-rate"]').setAttribute("aria-label", `Price of tier ${place + 1}`);
    const next = rows[place + 1];
    row.querySelector("[data-upto]").textContent = next
      ? next.querySelector('[name$="-start"]').value || "…"
      : "and beyond";
    row.querySelector('[name$="-flat"]').setAttribute("aria-label", `Flat amount of tier ${place + 1}`);
    row.querySelector("[data-remove]").hidden = place === 0;
    row.querySelector("[data-symbol]").hidden = share;
    row.querySelector("[data-rate-per]").textContent = share ? "% of cost" : word[2];
  });
  for (const part of document.querySelectorAll("[data-many]")) part.textContent = word[0];
  for (const part of document.querySelectorAll("[data-one]")) part.textContent = word[1];
  for (const part of document.querySelectorAll("[data-short]")) part.textContent = word[3];
  const title = form.querySelector("[data-tiers-title]");
  title.textContent = kind === "tiers" ? "Tiers" : "Price";
  form.querySelector("[data-tiers-foot]").textContent =
    kind === "tiers"
      ? `Ends always meet, so no ${word[1]} is left without a price.`
      : share
        ? "A share of what the provider charges for the request."
        : `Every ${word[1]} costs the same.`;
  const help = form.querySelector("[data-kind-help]");
  if (help) help.textContent =
    kind === "kinds"
      ? "Input, output and cached input each have a rate of their own."
      : kind === "tiers"
      ? "The more is used, the less, or more, it costs."
      : kind === "percent"
        ? "Send the provider’s cost with each request."
        : "The same price from the first unit on.";
  const mode = form.querySelector("[data-mode-help]:not(.lv-error)");
  if (mode) mode.textContent =
    value(form, "tier_mode") === "volume"
      ? `All ${word[0]} of a cycle cost what the tier they reach says. Each pays the first tier’s price, and the rest comes back as credit when the cycle ends.`
      : `Each tier prices only the ${word[0]} inside it, at once.`;
  const unit = form.querySelector("[data-unit-help]");
  if (unit) {
    unit.textContent = {
      minutes: "You send seconds; they are priced by the exact second.",
      requests: "Each request you report counts one.",
      tokens_1m: "You send tokens; the price is for a million.",
      characters_1m: "You send characters; the price is for a million.",
    }[value(form, "unit")];
  }
}

/* One question at a time to the server; the last one typed wins. */
function asker(form, address, show) {
  let timer = 0;
  let asked = 0;
  return () => {
    window.clearTimeout(timer);
    timer = window.setTimeout(async () => {
      asked += 1;
      const mine = asked;
      const body = new FormData(form);
      body.delete("logo");
      const answer = await fetch(address, {
        method: "POST",
        body,
        headers: { "X-CSRFToken": value(form, "csrfmiddlewaretoken") },
      });
      if (answer.ok && mine === asked) await show(answer);
    }, 180);
  };
}

function plan(form) {
  const target = document.querySelector("[data-preview-target]");
  const spread = () => {
    const said = target.querySelector("#cb-example");
    for (const place of form.querySelectorAll("[data-example]")) {
      if (place.closest(".lv-choice").querySelector("input[type=radio]").checked && said) {
        place.textContent = said.textContent;
      }
    }
  };
  const words = () => {
    const select = form.querySelector("#billing_interval");
    for (const part of form.querySelectorAll("[data-interval]")) part.textContent = select.value;
    for (const part of form.querySelectorAll("[data-per]")) part.textContent = `a ${select.value}`;
  };
  const ask = asker(form, form.dataset.preview, async (answer) => {
    target.innerHTML = await answer.text();
    spread();
  });
  form.addEventListener("input", () => {
    words();
    dress(form);
    ask();
  });
  return ask;
}

function brand(form) {
  const target = document.querySelector("[data-preview-target]");
  const ask = asker(form, form.dataset.preview, async (answer) => {
    target.innerHTML = await answer.text();
  });
  const color = form.elements.namedItem("brand_color");
  form.addEventListener("input", (event) => {
    form.querySelector("[data-color-text]").textContent = color.value;
    if (event.target === color || event.target.name === "name") ask();
  });
  return ask;
}

function meter(form) {
  const target = document.querySelector("[data-calculator]");
  const ask = asker(form, form.dataset.calculate, async (answer) => {
    target.innerHTML = (await answer.json()).html;
  });
  const button = document.querySelector("[data-publish]");
  const terms = () =>
    JSON.stringify(
      [...new FormData(form)].filter(
        ([name]) => !["csrfmiddlewaretoken", "name", "slug"].includes(name) && !name.startsWith("calculator"),
      ),
    );
  const before = terms();
  const label = button.textContent;
  const changed = () => {
    dress(form);
    if (button.dataset.publish) {
      button.textContent = terms() === before ? label : button.dataset.publish;
    }
    ask();
  };
  document.addEventListener("input", (event) => {
    if (event.target.form === form) changed();
  });
  const slug = form.elements.namedItem("slug");
  if (slug && !slug.disabled) {
    let own = slug.value !== "";
    slug.addEventListener("input", () => { own = true; });
    form.elements.namedItem("name").addEventListener("input", (event) => {
      if (!own) {
        slug.value = event.target.value
          .toLowerCase()
          .replace(/[^a-z0-9]+/g, "-")
          .replace(/^-+|-+$/g, "")
          .slice(0, 64);
      }
    });
  }
  return changed;
}

for (const form of forms) {
  // First what is folded away, so that it does not look like a change later.
  dress(form);
  const changed = { plan, meter, brand }[form.dataset.builder](form);
  form.addEventListener("click", (event) => {
    const add = event.target.closest("[data-add]");
    if (add) {
      addRow(form, add.dataset.add);
      changed();
    }
    const remove = event.target.closest("[data-remove]");
    if (remove) {
      remove.closest("[data-row]").remove();
      dress(form);
      changed();
    }
  });
  form.addEventListener("change", (event) => {
    const box = event.target;
    if (box.matches('input[name$="-remove"]')) {
      const row = box.closest("[data-row]");
      if (row.querySelector('input[name$="-id"]').value) row.toggleAttribute("data-removed", box.checked);
      else row.remove();
      dress(form);
      changed();
    }
  });
}

for (const bar of document.querySelectorAll("[data-tabs]")) {
  bar.hidden = false;
  const choose = (chosen) => {
    for (const button of bar.querySelectorAll("[data-tab]")) {
      const on = button.dataset.tab === chosen;
      button.setAttribute("aria-pressed", String(on));
      document.querySelector(`[data-panel="${bar.dataset.tabs}-${button.dataset.tab}"]`).hidden = !on;
    }
  };
  bar.addEventListener("click", (event) => {
    const button = event.target.closest("[data-tab]");
    if (button) choose(button.dataset.tab);
  });
  choose(bar.querySelector("[data-tab]").dataset.tab);
}
