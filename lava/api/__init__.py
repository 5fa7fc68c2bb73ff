"""What settings name by string for the API, and no app imports: parser, renderer, error handler."""
