"""Safe replacement: a challenger serves a growing share of the requests until it is promoted or taken back."""
