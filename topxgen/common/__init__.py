"""What every script needs: flags, messages, errors, files, the Hub, provenance, records."""
