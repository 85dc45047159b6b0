"""An instance's role for one resource, as a table. What an instance believes is never what makes a
commit safe (the server's check of the fence is): the role tells it what to do, not what is true.

    role        event             next role
    following   own fence read    active
    following   other fence read  following
    active      own fence read    active      (a renewed grant)
    active      other fence read  following   (demoted)
    active      commit refused    fenced      (a newer fence exists that was not read yet)
    fenced      other fence read  following
    fenced      own fence read    active
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class InstanceRole(StrEnum):
    FOLLOWING = "following"
    ACTIVE = "active"
    FENCED = "fenced"


class RoleEvent(StrEnum):
    OWN_FENCE = "own_fence"
    OTHER_FENCE = "other_fence"
    COMMIT_REFUSED = "commit_refused"


TRANSITIONS: Final[dict[tuple[InstanceRole, RoleEvent], InstanceRole]] = {
    (InstanceRole.FOLLOWING, RoleEvent.OWN_FENCE): InstanceRole.ACTIVE,
    (InstanceRole.FOLLOWING, RoleEvent.OTHER_FENCE): InstanceRole.FOLLOWING,
    (InstanceRole.ACTIVE, RoleEvent.OWN_FENCE): InstanceRole.ACTIVE,
    (InstanceRole.ACTIVE, RoleEvent.OTHER_FENCE): InstanceRole.FOLLOWING,
    (InstanceRole.ACTIVE, RoleEvent.COMMIT_REFUSED): InstanceRole.FENCED,
    (InstanceRole.FENCED, RoleEvent.OTHER_FENCE): InstanceRole.FOLLOWING,
    (InstanceRole.FENCED, RoleEvent.OWN_FENCE): InstanceRole.ACTIVE,
}
