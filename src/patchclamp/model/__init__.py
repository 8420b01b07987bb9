"""Any Hugging Face model, in place."""
