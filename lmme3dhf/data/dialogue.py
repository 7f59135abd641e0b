"""Questions as token sequences: chat format, video placeholders, which tokens are learnt, and where
the score is read.

The score is read at the last token of the answer's prefix ("The quality of the human face in this
video is"): the position whose output predicts the level word. It is found by that prefix, never by
counting from the end, and in a causal model nothing that follows it can change it. The released
code counts, and lands on the level word itself, which is a label.
"""

import re
from dataclasses import dataclass, replace

from transformers import PreTrainedTokenizerBase

from lmme3dhf.aspects import Aspect, Aspects
from lmme3dhf.data.samples import DataError

VIDEO_PAD = "<|video_pad|>"
_END = "<|im_end|>"
_PROMPT = "\ue000"  # stands for the user's text in the chat template
IGNORED = -100  # label of a token that is not learnt
VIDEO_TYPE = 2  # mm_token_type_ids: text 0, image 1, video 2


@dataclass(frozen=True)
class Encoded:
    """One dialogue as tokens, with one placeholder for the video.

    Attributes:
        input_ids: The tokens.
        labels: The same with `IGNORED` wherever nothing is learnt.
        read_index: Index of the answer prefix's last token; -1 without a prefix.
        video_pad: The placeholder's token.
    """

    input_ids: tuple[int, ...]
    labels: tuple[int, ...]
    read_index: int
    video_pad: int

    def expand(self, video_tokens: int) -> "Encoded":
        """The dialogue with the placeholder repeated once a visual token."""
        at, grow = self.input_ids.index(self.video_pad), video_tokens - 1

        def repeated(values: tuple[int, ...]) -> tuple[int, ...]:
            return (*values[:at], *[values[at]] * video_tokens, *values[at + 1 :])

        return replace(
            self,
            input_ids=repeated(self.input_ids),
            labels=repeated(self.labels),
            read_index=self.read_index + grow if self.read_index >= 0 else -1,
        )


class DialogueEncoder:
    """Encodes dialogues on one video each.

    Args:
        tokenizer: The model's tokenizer, with its chat template.

    Raises:
        DataError: The tokenizer lacks words, control tokens or a chat template that works.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        self.video_pad = tokenizer.convert_tokens_to_ids(VIDEO_PAD)
        self._end = tokenizer.convert_tokens_to_ids(_END)
        self._control = {str(t) for t in tokenizer.added_tokens_decoder.values() if t.special}
        self._known: dict[tuple, Encoded] = {}
        self._try()

    def _try(self) -> None:
        """Encodes a question, since the library loads tokenizers and templates that cannot."""
        question = "Is it good?"
        try:
            trial = self._encode(question, None, None, True)
            found = self.tokenizer.decode(trial.input_ids)
            control = self.tokenizer.convert_ids_to_tokens([self.video_pad, self._end])
            if question not in found or control != [VIDEO_PAD, _END]:
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
        video_first: bool = True,
    ) -> Encoded:
        """Encodes a question and what the assistant says.

        Args:
            prompt: The user's text; what looks like a control token in it is text.
            reply: The assistant's reply; it is learnt, with its end. None to ask.
            prefix: Start of the reply up to the read position. With a reply, the reply must start
                with it.
            video_first: Whether the video stands before the text, as in the released lists. The
                saliency question stands before the video, so that it can influence the visual
                tokens' hidden states.

        Raises:
            DataError: The reply does not start with the prefix, or its tokens do not.
        """
        key = (prompt, reply, prefix, video_first)
        if key not in self._known:
            self._known[key] = self._encode(*key)
        return self._known[key]

    def _encode(
        self, prompt: str, reply: str | None, prefix: str | None, video_first: bool
    ) -> Encoded:
        media, text = {"type": "video"}, {"type": "text", "text": _PROMPT}
        messages = [{"role": "user", "content": [media, text] if video_first else [text, media]}]
        asked = self.tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True
        )
        before, after = asked.split(_PROMPT)
        if self._control.isdisjoint(self.tokenizer.tokenize(prompt)):
            ids = self.tokenizer.encode(before + prompt + after, add_special_tokens=False)
        else:
            ids = [
                *self.tokenizer.encode(before, add_special_tokens=False),
                *self.tokenizer.encode(prompt, add_special_tokens=False, split_special_tokens=True),
                *self.tokenizer.encode(after, add_special_tokens=False),
            ]
        if ids.count(self.video_pad) != 1:
            raise DataError(
                f"chat template: a dialogue holds exactly one video placeholder, this one "
                f"{ids.count(self.video_pad)}"
            )
        start = len(ids)
        spoken = prefix if reply is None else reply
        answer = self.tokenizer.encode(spoken, add_special_tokens=False) if spoken else []
        read_index = -1
        if prefix is not None:
            head = self.tokenizer.encode(prefix, add_special_tokens=False)
            if answer[: len(head)] != head:
                raise DataError(
                    f"reply {reply!r} does not start with {prefix!r}: the position of the score "
                    "cannot be found"
                )
            read_index = start + len(head) - 1
        if reply is not None:
            answer = [*answer, self._end]
        learnt = answer if reply is not None else [IGNORED] * len(answer)
        return Encoded(
            input_ids=(*ids, *answer),
            labels=(*[IGNORED] * start, *learnt),
            read_index=read_index,
            video_pad=self.video_pad,
        )


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
