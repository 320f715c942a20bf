"""Which role a route of the people's listener needs; no route is without one."""

from __future__ import annotations

from typing import Annotated, cast

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from fleet_server.db import Database
from fleet_server.errors import Forbidden
from fleet_server.identity import api_keys
from fleet_server.identity.model import Principal, Role

_bearer = HTTPBearer(auto_error=False, description="An API key: edge-fleet keys create")
Credentials = Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]


class Requires:
    """A dependency that yields who asks, if their role suffices."""

    def __init__(self, role: Role) -> None:
        self.role = role

    def __call__(self, request: Request, credentials: Credentials) -> Principal:
        """The principal. Raises: Unauthenticated, Forbidden."""
        database = cast("Database", request.app.state.database)
        with database.reading() as session:
            principal = api_keys.authenticate(session, credentials.credentials if credentials else None)
        return require(principal, self.role)


def require(principal: Principal, role: Role) -> Principal:
    """The principal, if their role suffices. Raises: Forbidden."""
    if not principal.role.includes(role):
        raise Forbidden(
            "do this", f"the key of {principal.name} has role {principal.role.value}", f"use one with role {role.value}"
        )
    return principal


Viewer = Annotated[Principal, Depends(Requires(Role.VIEWER))]
Operator = Annotated[Principal, Depends(Requires(Role.OPERATOR))]
Releaser = Annotated[Principal, Depends(Requires(Role.RELEASER))]
Admin = Annotated[Principal, Depends(Requires(Role.ADMIN))]
