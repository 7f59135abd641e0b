"""Questions as token sequences: chat format, media placeholders, which tokens are learnt, and where
hidden states are read.

The score is read at the last token of the answer's prefix ("The quality of the human face in this
video is"): the position whose output predicts the level word. It is found by that prefix, never by
counting from the end, and in a causal model nothing that follows it can change it. The released
code counts, and lands on the level word itself, which is a label.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from transformers import PreTrainedTokenizerBase

from lmme3dhf.aspects import Aspect, Aspects
from lmme3dhf.data.samples import DataError
from lmme3dhf.models.backbone import END, MEDIA

IGNORED = -100  # label of a token that is not learnt
_MARKER = "video"  # the kind whose placeholder stands for any medium until it is known
_PROMPT = "\ue000"  # stands for a user's text in the chat template, followed by its number
_REPLY = "\ue001"


@dataclass(frozen=True, kw_only=True)
class Turn:
    """What the user says and, where it is known, what the assistant replies.

    Attributes:
        prompt: The user's text; what looks like a control token in it is text.
        reply: The reply, with its end; None to ask for it.
        prefix: Start of the reply up to the position that is read; the reply must start with it.
        learnt: Whether the reply's tokens are learnt; a reply that is given is not.
    """

    prompt: str
    reply: str | None = None
    prefix: str | None = None
    learnt: bool = True


@dataclass(frozen=True)
class Encoded:
    """One dialogue as tokens, with one placeholder for the video or image.

    Attributes:
        input_ids: The tokens.
        labels: The same with `IGNORED` wherever nothing is learnt.
        reads: Name -> the tokens that may be read under it, a position or a span: `question`, the
            last token before the last reply; `answer`, the last token of its prefix, where it has
            one; `reply`, what is there of the last reply; `media`, the placeholder; `text`, all
            that follows it; `dialogue`, everything.
        placeholders: Kind of medium -> token of its placeholder. Here that of a video stands for
            any of them.
    """

    input_ids: tuple[int, ...]
    labels: tuple[int, ...]
    reads: Mapping[str, range]
    placeholders: Mapping[str, int]

    @property
    def marker(self) -> int:
        """The token that stands for the medium."""
        return self.placeholders[_MARKER]

    @property
    def read_index(self) -> int:
        """Index of the answer prefix's last token; -1 without a prefix."""
        return self.reads["answer"].start if "answer" in self.reads else -1

    def expand(self, kind: str, visual_tokens: int) -> "Encoded":
        """The dialogue on a medium of a kind, with its placeholder once a visual token."""
        at, grow = self.input_ids.index(self.marker), visual_tokens - 1

        def repeated(values: tuple[int, ...], value: int) -> tuple[int, ...]:
            return (*values[:at], *[value] * visual_tokens, *values[at + 1 :])

        return replace(
            self,
            input_ids=repeated(self.input_ids, self.placeholders[kind]),
            labels=repeated(self.labels, IGNORED),
            reads={
                name: range(
                    span.start + grow * (span.start > at), span.stop + grow * (span.stop > at)
                )
                for name, span in self.reads.items()
            },
        )


class DialogueEncoder:
    """Encodes dialogues on one video or image each.

    Args:
        tokenizer: The model's tokenizer, with its chat template.

    Raises:
        DataError: The tokenizer lacks words, control tokens or a chat template that works.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        names = [about.placeholder for about in MEDIA.values()]
        self.placeholders = dict(zip(MEDIA, tokenizer.convert_tokens_to_ids(names), strict=True))
        self._end = tokenizer.convert_tokens_to_ids(END)
        self._control = {str(t) for t in tokenizer.added_tokens_decoder.values() if t.special}
        # Most questions come again with every clip.
        self._known = lru_cache(maxsize=4096)(self._encode)
        self._try()

    @property
    def marker(self) -> int:
        """The token that stands for the medium in dialogues that are not expanded."""
        return self.placeholders[_MARKER]

    def _try(self) -> None:
        """Encodes a question, since the library loads tokenizers and templates that cannot."""
        question = "Is it good?"
        try:
            trial = self.encode(question)
            found = self.tokenizer.decode(trial.input_ids)
            expected = [MEDIA[_MARKER].placeholder, END]
            control = self.tokenizer.convert_ids_to_tokens([trial.marker, self._end])
            if question not in found or control != expected:
                raise DataError(f"a question becomes {found[:100]!r}")
        except Exception as error:  # a template is a program, and may raise anything
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            raise DataError(
                f"{self.tokenizer.name_or_path}: its tokenizer and chat template cannot encode a "
                f"question on a video ({reason}); expected tokenizer.json and chat_template.jinja "
                "of a Qwen2.5-VL: copy these files from its base"
            ) from error

    def encode(
        self,
        prompt: str,
        *,
        reply: str | None = None,
        prefix: str | None = None,
        media_first: bool = True,
        before: Sequence[Turn] = (),
    ) -> Encoded:
        """Encodes a dialogue.

        Args:
            prompt: The last question; see `Turn`, as the next two.
            reply: Its reply, which is learnt; None to ask.
            prefix: Start of the reply up to the read position.
            media_first: Whether the video or image stands before the first question's text, as in
                the released lists. The saliency question stands before the video, so that it can
                influence the visual tokens' hidden states.
            before: What was said before; each of these turns has its reply.

        Raises:
            DataError: A reply does not start with its prefix, or its tokens do not, or an earlier
                turn has no reply.
        """
        last = Turn(prompt=prompt, reply=reply, prefix=prefix)
        return self._known((*before, last), media_first)

    def _encode(self, turns: tuple[Turn, ...], media_first: bool) -> Encoded:
        if any(turn.reply is None for turn in turns[:-1]):
            raise DataError("dialogue: only the last question may be without a reply")
        ids: list[int] = []
        labels: list[int] = []
        reads: dict[str, range] = {}
        for turn, asked in zip(turns, self._questions(len(turns), media_first), strict=True):
            question = self._question(turn.prompt, asked)
            answer, learnt, position = self._answer(turn)
            start = len(ids) + len(question)
            ids += [*question, *answer]
            labels += [*[IGNORED] * len(question), *(answer if learnt else [IGNORED] * len(answer))]
            reads = {"question": range(start - 1, start), "reply": range(start, len(ids))}
            if position is not None:
                reads["answer"] = range(start + position, start + position + 1)
        marker = self.marker
        if ids.count(marker) != 1:
            raise DataError(
                f"chat template: a dialogue holds exactly one video placeholder, this one "
                f"{ids.count(marker)}"
            )
        at = ids.index(marker)
        reads |= {
            "media": range(at, at + 1),
            "text": range(at + 1, len(ids)),
            "dialogue": range(len(ids)),
        }
        return Encoded(tuple(ids), tuple(labels), reads, self.placeholders)

    def _questions(self, count: int, media_first: bool) -> list[tuple[str, str]]:
        """What the chat template puts before and after each question's text; what follows the reply
        of a turn begins the next one's.
        """
        media = {"type": _MARKER}
        messages = []
        for number in range(count):
            text = {"type": "text", "text": f"{_PROMPT}{number}{_PROMPT}"}
            content = [text] if number else [media, text] if media_first else [text, media]
            messages.append({"role": "user", "content": content})
            if number < count - 1:
                said = f"{_REPLY}{number}{_REPLY}"
                messages.append({"role": "assistant", "content": said})
        rest = self.tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True
        )
        parts = []
        for number in range(count):
            before, after = rest.split(f"{_PROMPT}{number}{_PROMPT}")
            rest = ""
            if number < count - 1:
                after, rest = after.split(f"{_REPLY}{number}{_REPLY}")
                # The reply is encoded with its end.
                rest = rest.removeprefix(END)
            parts.append((before, after))
        return parts

    def _question(self, prompt: str, asked: tuple[str, str]) -> list[int]:
        before, after = asked
        encode = self.tokenizer.encode
        if self._control.isdisjoint(self.tokenizer.tokenize(prompt)):
            return encode(before + prompt + after, add_special_tokens=False)
        return [
            *encode(before, add_special_tokens=False),
            *encode(prompt, add_special_tokens=False, split_special_tokens=True),
            *encode(after, add_special_tokens=False),
        ]

    def _answer(self, turn: Turn) -> tuple[list[int], bool, int | None]:
        """Tokens of a reply, or of its prefix alone; whether they are learnt; and the index of the
        prefix's last token, which is -1, the question's last, for an empty prefix.
        """
        encode = self.tokenizer.encode
        said = turn.prefix if turn.reply is None else turn.reply
        answer = encode(said, add_special_tokens=False) if said else []
        position = None
        if turn.prefix is not None:
            head = encode(turn.prefix, add_special_tokens=False)
            if answer[: len(head)] != head:
                raise DataError(
                    f"reply {turn.reply!r} does not start with {turn.prefix!r}: the position of "
                    "the score cannot be found"
                )
            position = len(head) - 1
        if turn.reply is None:
            return answer, False, position
        return [*answer, self._end], turn.learnt, position


def with_tokens(aspects: Aspects, tokenizer: PreTrainedTokenizerBase) -> dict[str, Aspect]:
    """The aspects with the tokens of their level words; raises as `level_token_ids`."""
    found = dict(aspects)
    for name, aspect in aspects.items():
        if words := aspect.scale.levels:
            # A slot of the sample does not change the token after the prefix's last word.
            prefix = re.sub(r"{(?!aspect})\w+}", "x", aspect.answer_prefix).format(aspect=name)
            tokens = level_token_ids(tokenizer, prefix, words)
            found[name] = replace(aspect, scale=aspect.scale.replace(tokens=tokens))
    return found


def turns_before(aspect: Aspect | None, slots: Mapping[str, str]) -> tuple[Turn, ...]:
    """The rounds before an aspect's question, with their replies; none before another question.

    Raises:
        DataError: The slot of a reply is missing.
    """
    if aspect is None:
        return ()
    missing = [asked.slot for asked in aspect.before if asked.slot not in slots]
    if missing:
        raise DataError(
            f"aspect {aspect.name}: the reply of an earlier round, slot {missing[0]!r}, is not "
            f"among those of the sample ({', '.join(slots) or 'none'}); give it with the sample"
        )
    return tuple(
        Turn(prompt=prompt, reply=slots[slot], learnt=asked.learnt)
        for (prompt, slot), asked in zip(aspect.rounds(slots), aspect.before, strict=True)
    )


def level_token_ids(
    tokenizer: PreTrainedTokenizerBase, prefix: str, words: tuple[str, ...]
) -> tuple[int, ...]:
    """Token that each word starts with after the prefix.

    Args:
        tokenizer: The model's tokenizer.
        prefix: The reply up to the word.
        words: The level words.

    Raises:
        DataError: Two words share their token, or the prefix's tokens change when a word follows.
    """
    head = tokenizer.encode(prefix, add_special_tokens=False)
    tokens = []
    for word in words:
        whole = tokenizer.encode(f"{prefix} {word}.", add_special_tokens=False)
        if whole[: len(head)] != head:
            raise DataError(
                f"tokenizer: {prefix!r} is split differently before {word!r}; choose another "
                "answer_prefix"
            )
        tokens.append(whole[len(head)])
    if len(set(tokens)) != len(tokens):
        raise DataError(
            f"tokenizer: the words {', '.join(words)} do not start with different tokens after "
            f"{prefix!r}: {tokens}"
        )
    return tuple(tokens)
