"""Who may call a door's admin routes: one master key, one token per RewardModel, derived and never stored.

The pod carries only the SHA-256 of its token, so reading a pod (or its node's disk) gives no admin access, and no
Secret of ours lies in a tenant's namespace. RFC 2104 (HMAC).
"""

from __future__ import annotations

import hashlib
import hmac


def admin_token(master_key: bytes, namespace: str, name: str, uid: str) -> str:
    """The bearer token of one RewardModel's doors. The uid makes a re-created resource a different one."""
    return hmac.new(master_key, f"genrm-door-v1\0{namespace}\0{name}\0{uid}".encode(), hashlib.sha256).hexdigest()


def router_token(master_key: bytes, namespace: str, name: str, uid: str) -> str:
    """The bearer token of one RewardModel's router: another one, so that a router cannot speak for the operator."""
    return hmac.new(master_key, f"genrm-router-v1\0{namespace}\0{name}\0{uid}".encode(), hashlib.sha256).hexdigest()


def token_digest(token: str) -> str:
    """What the door compares with: lower-case hex SHA-256."""
    return hashlib.sha256(token.encode()).hexdigest()
