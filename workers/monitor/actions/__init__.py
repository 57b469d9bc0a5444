"""What a person can do from a page: buttons, forms and dialogs, each with its question first."""
