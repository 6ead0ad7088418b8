"""The browser app in which a pathologist corrects and signs the count."""
