"""Pictures and widgets: look at films, chains and scores."""
