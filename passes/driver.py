"""The driver: applies rules to a fixpoint with a work-list, and accounts for everything it did and did not do.

Each node whose op ends a rule's pattern is tried, in graph order; what a rewrite touches is tried again. The queue
starts anew until nothing changes, so the result is a fixpoint. A replacement must have the type of what it replaces,
or a more precise one. Uses are redirected and the matched nodes that lost theirs are erased at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from fusible.compiler.ir.graph import Graph, Node, Value
from fusible.compiler.ir.refine import rebuild_types
from fusible.compiler.ir.symbols import Dim
from fusible.errors import InvalidModel, PassError, UsageError
from fusible.passes.base import Pass, PassContext, value_name
from fusible.passes.ledger import Entry, Kind
from fusible.passes.lineage import Lineages
from fusible.passes.match import Match, Miss, find_match
from fusible.passes.refinement import erase_dead, is_used, type_change
from fusible.passes.rewrite import Reject, Rule
from fusible.passes.rewrite_check import check_rewrite

__all__ = ["RewritePass"]

_REACH = 4  # how many users down a rewrite may enable a match at once; farther ones wait for the next round


class RewritePass(Pass):
    """A pass made of rules. Its exactness is that of its strictest rule; each rule obeys the bound by itself."""

    def __init__(self, name: str, rules: Sequence[Rule]) -> None:
        if not rules:
            raise UsageError(f"pass {name!r} has no rules")
        names = [r.name for r in rules]
        if len(set(names)) != len(names):
            raise UsageError(f"pass {name!r} has two rules of one name: {', '.join(sorted(names))}")
        self.name, self.rules = name, tuple(rules)
        self.exactness = min(r.exactness for r in rules)

    def run(self, graph: Graph, context: PassContext) -> int:
        """Rewrite the graph and its subgraphs until no rule applies."""
        allowed = [r for r in self.rules if r.exactness <= context.exactness]
        for skipped in (r for r in self.rules if r.exactness > context.exactness):
            reason = f"the rule is {skipped.exactness.name}, {context.exactness.name} is the loosest allowed"
            context.ledger.add(Entry(Kind.DECLINED, self.name, skipped.name, reason=reason))
        for rule in allowed:
            rule.check()
        changes = 0
        for inner in reversed(list(graph.all_graphs())):
            driver = _Driver(self.name, allowed, inner, context)
            changes += driver.run()
            if driver.refined:
                rebuild_types(graph, driver.known)
                for node in driver.retired:
                    erase_dead(inner, node)
        return changes


@dataclass
class _Driver:
    """One graph's work-list."""

    pass_name: str
    rules: Sequence[Rule]
    graph: Graph
    context: PassContext
    refined: bool = False
    known: dict[str, Dim] = field(default_factory=dict)  # symbols of replaced nodes, now known
    retired: list[Node] = field(default_factory=list)  # dead, but types still mention their symbols
    changes: int = 0
    reports: dict[tuple[str, Node], Entry] = field(default_factory=dict)  # what did not fire, by rule and root

    def __post_init__(self) -> None:
        self.by_op: dict[str, list[Rule]] = {}
        for rule in self.rules:
            for name in rule.root_ops:
                self.by_op.setdefault(name, []).append(rule)
        self.reach = min(max((r.depth for r in self.rules), default=1), _REACH)
        self.lineages = Lineages(self.pass_name, len(self.graph))
        self.queue: deque[Node] = deque()
        self.queued: set[Node] = set()

    def run(self) -> int:
        """Work until a whole round changes nothing."""
        before = -1
        while before != self.changes:
            before = self.changes
            self._enqueue(self.graph)
            while self.queue and not self.context.exhausted:
                node = self.queue.popleft()
                self.queued.discard(node)
                if node.graph is self.graph:
                    self._visit(node)
        for (_, root), entry in self.reports.items():
            if root.graph is self.graph:
                self.context.ledger.add(entry)
        return self.changes

    def _enqueue(self, nodes: Iterable[Node], *, first: bool = False) -> None:
        for node in nodes:
            if node.op.name in self.by_op and node not in self.queued:
                self.queued.add(node)
                if first:
                    self.queue.appendleft(node)
                else:
                    self.queue.append(node)

    def _visit(self, node: Node) -> None:
        for rule in self.by_op[node.op.name]:
            if not any(is_used(self.graph, v) for v in rule.replaced(node)):
                continue
            miss = Miss()
            match = find_match(rule.pattern, node, miss)
            if match is None:
                self._report_miss(rule, node, miss)
            elif self._apply(rule, match):
                return

    def _apply(self, rule: Rule, match: Match) -> bool:
        """Build the replacement and put it in place; False if the rule refuses."""
        root, graph = match.root, self.graph
        self.context.check_deadline(f"pass {self.pass_name!r}")
        before = root._prev
        with graph.inserting_before(root, match.origin):
            try:
                made = rule.apply(graph, match)
            except InvalidModel as error:
                self._erase(_between(graph, before, root))
                raise PassError(self.pass_name, f"rule {rule.name!r} built a node that is wrong: {error}") from error
        new = _between(graph, before, root)
        old = rule.replaced(root)
        if not isinstance(made, Reject):
            made = self._checked(rule, match, old, made)
        if isinstance(made, Reject):
            self._erase(new)
            self._report(Kind.DECLINED, rule, root, made.reason, made.culprits)
            return False
        if not self.context.take():
            self._erase(new)
            return False
        check_rewrite(self.context, self.pass_name, rule, match, old, made, new)
        self._replace(rule, match, old, made, new)
        return True

    def _checked(
        self, rule: Rule, match: Match, old: Sequence[Value], made: list[Value]
    ) -> list[Value] | Reject:
        """The replacement, or a refusal if its types cannot stand for the old ones."""
        where = f"rule {rule.name!r} at {match.root.where}"
        if len(made) != len(old) or not all(isinstance(v, Value) for v in made):
            raise PassError(self.pass_name, f"{where} replaces {len(old)} values, it built {made!r}")
        if any(v is w for v in made for w in match.root.outputs):
            raise PassError(self.pass_name, f"{where} returns a value that it replaces")
        changes = []
        for now, value in zip(old, made, strict=True):
            change = type_change(now, value, match.matched, self.known)
            if change.wrong:
                raise PassError(self.pass_name, f"{where} replaces {now.type} by {value.type}")
            if change.reason:
                return Reject(change.reason, now)
            changes.append(change)
        for change in changes:
            self.refined = self.refined or change.refines
            self.known.update(change.known)
        return made

    def _replace(
        self, rule: Rule, match: Match, old: Sequence[Value], made: Sequence[Value], new: Sequence[Node]
    ) -> None:
        root, graph = match.root, self.graph
        self.lineages.record(rule.name, match, made, new, len(graph))
        operands = list(dict.fromkeys(v for node in match.matched for v in node.inputs if v is not None))
        nodes = match.origin
        for value, replacement in zip(old, made, strict=True):
            if not replacement.name:
                replacement.name = value.name
            graph.redirect(value, replacement)
        for node in match.matched:
            erase_dead(graph, node)
            if node.defines and node.graph is graph:
                self.retired.append(node)
        for node in new:
            erase_dead(graph, node)
        self.changes += 1
        saved = len(match.matched) - len(new)
        reason = f"{len(match.matched)} nodes became {len(new)}" if saved else ""
        self.context.ledger.add(Entry(Kind.FIRED, self.pass_name, rule.name, nodes, reason))
        self._enqueue(self._affected(made, operands))
        if root.graph is graph:
            self._enqueue([root])
        self._enqueue(reversed([n for n in new if n.graph is graph]), first=True)

    def _affected(self, made: Sequence[Value], operands: Sequence[Value]) -> list[Node]:
        """Nodes that may match now: users of the new values, down to `reach`; the last users of the old operands."""
        found: dict[Node, None] = {}
        front = [user for value in made for user, _ in value.uses]
        front += [user for value in operands if len(value.uses) == 1 for user, _ in value.uses]
        for _ in range(self.reach):
            front = [n for n in dict.fromkeys(front) if n not in found and n.graph is self.graph]
            found.update(dict.fromkeys(front))
            front = [user for node in front for v in node.outputs if len(v.uses) <= 8 for user, _ in v.uses]
        return list(found)

    def _erase(self, nodes: Sequence[Node]) -> None:
        for node in reversed(nodes):
            self.graph.erase(node)

    def _report_miss(self, rule: Rule, root: Node, miss: Miss) -> None:
        if miss.depth < 2:  # the root alone is no news
            self.reports.pop((rule.name, root), None)
            return
        reason = f"{miss.depth} nodes match, then {miss.wanted}"
        self._report(Kind.NEAR_MISS, rule, root, reason, tuple(c for c in miss.culprits if c is not None))

    def _report(
        self, kind: Kind, rule: Rule, root: Node, reason: str, culprits: Sequence[Value | Node]
    ) -> None:
        names = tuple(value_name(c) for c in culprits)
        self.reports[rule.name, root] = Entry(kind, self.pass_name, rule.name, root.origin, reason, names)


def _between(graph: Graph, before: Node | None, root: Node) -> list[Node]:
    """The nodes that were inserted between a node (None: the beginning) and the root."""
    found: list[Node] = []
    node = root._prev
    while node is not None and node is not before:
        found.append(node)
        node = node._prev
    return found[::-1]
