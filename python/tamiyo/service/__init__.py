"""The controller: supervision, the decision cycle, the journal."""

from tamiyo.service.journal import DecisionJournal, JournalError, read_journal
from tamiyo.service.service import ServiceConfig, TamiyoService

__all__ = ["DecisionJournal", "JournalError", "ServiceConfig", "TamiyoService", "read_journal"]
