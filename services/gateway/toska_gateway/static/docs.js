// One Swagger UI over the whole mesh: the choice of a service changes the document that is shown.
// Nothing is stored: a token that was entered here is gone when the page is.
"use strict";

const ALL = "/openapi.json";
const picker = document.getElementById("service");
const notice = document.getElementById("notice");

const urlOf = (service) => (service ? `/api/v1/openapi/${encodeURIComponent(service)}` : ALL);
const chosen = () => new URLSearchParams(location.search).get("service") || "";

function group(label, services) {
  if (services.length === 0) return;
  const element = document.createElement("optgroup");
  element.label = label;
  for (const item of services) {
    const option = document.createElement("option");
    option.value = item.service;
    option.textContent = item.state === "missing" ? `${item.service} (no document)` : item.service;
    option.disabled = item.state === "missing";
    element.append(option);
  }
  picker.append(element);
}

function explain(services, service) {
  const item = services.find((each) => each.service === service);
  const missing = services.filter((each) => each.state === "missing").map((each) => `${each.service} (${each.problem})`);
  let text = "";
  if (item && item.state === "stale") text = `The document of ${item.service} could not be fetched again: ${item.problem}.`;
  else if (!service && missing.length) text = `Without a document: ${missing.join(", ")}.`;
  notice.textContent = text;
  notice.classList.toggle("shown", text !== "");
}

async function start() {
  const answer = await fetch("/api/v1/openapi");
  const services = answer.ok ? await answer.json() : [];
  group("Services", services.filter((item) => !item.mesh));
  group("The mesh itself", services.filter((item) => item.mesh));
  picker.value = services.some((item) => item.service === chosen()) ? chosen() : "";
  explain(services, picker.value);

  const ui = SwaggerUIBundle({
    url: urlOf(picker.value),
    dom_id: "#swagger-ui",
    deepLinking: true,
    defaultModelsExpandDepth: 0,
    displayRequestDuration: true,
    docExpansion: "list",
    filter: true,
    persistAuthorization: false,
    queryConfigEnabled: false,
    tryItOutEnabled: true,
    validatorUrl: null,
  });

  picker.addEventListener("change", () => {
    const query = picker.value ? `?service=${encodeURIComponent(picker.value)}` : location.pathname;
    history.replaceState(null, "", query);
    explain(services, picker.value);
    ui.specActions.updateUrl(urlOf(picker.value));
    ui.specActions.download(urlOf(picker.value));
  });
}

start();
