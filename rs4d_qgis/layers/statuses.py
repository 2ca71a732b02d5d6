"""What the field `status` of a result layer may hold. Pure."""

PENDING, ACCEPTED, REJECTED = STATUSES = ("pending", "accepted", "rejected")
