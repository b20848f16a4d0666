"""Images: archives in and out, names, documents, details."""
