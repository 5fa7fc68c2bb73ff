// Opens the API's description in Swagger UI. Keys typed here stay in this page.
SwaggerUIBundle({
  url: document.getElementById('docs').dataset.schema,
  domNode: document.getElementById('docs'),
  deepLinking: true,
  docExpansion: 'list',
  defaultModelsExpandDepth: 0,
  displayRequestDuration: true,
  filter: true,
  persistAuthorization: false,
  tryItOutEnabled: true,
  validatorUrl: null,
});
