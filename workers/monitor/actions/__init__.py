"""What a person can change from a page: buttons, forms and dialogs, which all go through `act.perform`."""
