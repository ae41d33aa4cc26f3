"""Typed helpers of the tests: free ports, waiting, and the owners of real server processes."""

from pgamb.demo.ports import free_port
from tests.support.waiting import wait_for, wait_for_async

__all__ = ["free_port", "wait_for", "wait_for_async"]
