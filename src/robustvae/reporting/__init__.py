"""Tables and arrays -> figures and pages."""
