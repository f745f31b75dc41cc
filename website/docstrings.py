"""What Griffe, which reads the sources for the API pages, is told of how the zoo writes its docstrings."""

from __future__ import annotations

import re
from typing import Any

import griffe

__all__ = ["Docstrings", "fence_examples"]


class Docstrings(griffe.Extension):
    """Doctests stand in code blocks; a name that a package hands on has a line there, its entry where it is written."""

    def on_package(self, *, pkg: griffe.Module, **kwargs: Any) -> None:
        self._visit(pkg)

    def _visit(self, node: griffe.Object) -> None:
        if node.is_module and node.exports:
            self._list_what_is_handed_on(node)
        if node.docstring:
            node.docstring.value = fence_examples(node.docstring.value)
        for member in node.members.values():
            if not member.is_alias:
                self._visit(member)
                if node.is_class and not _is_told(member):
                    member.public = False

    def _list_what_is_handed_on(self, module: griffe.Object) -> None:
        lines = []
        for name in sorted(str(export) for export in module.exports or ()):
            if name not in module.members:  # one of several that a line sets, which Griffe does not look at
                module.set_member(name, griffe.Attribute(name))
            member = module.members[name]
            if member.is_alias:
                member.public = False
                lines.append(f'- <a id="{module.path}.{name}"></a>{_summary(member)}')
        if lines and module.docstring:
            module.docstring.value += "\n\n" + "\n".join(lines)


def _is_told(member: Any) -> bool:
    """Whether a member of a class has an entry: what is called, and attributes that have a docstring."""
    called = member.is_function and not member.is_special
    return called or member.is_class or bool(member.docstring and not member.is_special)


def _summary(alias: Any) -> str:
    """A link to the entry, and the first sentence of its docstring."""
    try:
        target = alias.final_target
    except griffe.AliasResolutionError:  # of another library
        return f"`{alias.name}`"
    text = target.docstring.value.partition("\n\n")[0] if target.docstring else ""
    return f"[`{alias.name}`][{target.path}]" + (f": {' '.join(text.split())}" if text else "")


def fence_examples(text: str) -> str:
    """Put each doctest into a code block, with its results.

    >>> fence_examples("A sum.\\n\\n>>> 1 + 1\\n2").splitlines()
    ['A sum.', '', '```pycon', '>>> 1 + 1', '2', '```']
    """
    lines: list[str] = []
    indent = None  # of the doctest that is open
    for line in text.splitlines():
        if indent is None and line.lstrip().startswith(">>> "):
            indent = line[: len(line) - len(line.lstrip())]
            lines.append(f"{indent}```pycon")
        elif indent is not None and not line.strip():
            lines.append(f"{indent}```")
            indent = None
        lines.append(re.sub(r"\s*# doctest:.*|(?<=^Example):$", lambda m: "s:" if m[0] == ":" else "", line))
    return "\n".join([*lines, f"{indent}```"] if indent is not None else lines)
