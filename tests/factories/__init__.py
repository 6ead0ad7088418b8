"""Drawn images, toy models and made-up results that the tests share."""
