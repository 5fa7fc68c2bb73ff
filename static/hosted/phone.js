// The country list shows names; closed, it shows the region and its code.
const country = document.getElementById("country");
const shown = document.querySelector(".face .shown");

const show = () => {
  shown.textContent = country.selectedOptions[0].dataset.face;
};
country.addEventListener("change", show);
show();
