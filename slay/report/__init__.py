"""From records to tables, figures and the paper. Reads what was measured, never measures."""
