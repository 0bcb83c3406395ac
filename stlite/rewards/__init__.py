"""What a reply is worth: one parser, one scorer, and the rewards made of them."""
