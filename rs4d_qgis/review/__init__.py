"""The review panel: deciding on objects one by one, mending their outlines, and what comes of it.

`panel` puts the parts together; each is a package. What they share is here: `desk_state`, `keys`, and widgets that
fit into a narrow panel.
"""
