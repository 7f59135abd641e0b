"""Questions as token sequences: chat format, video placeholders, which tokens are learnt, and where
the score is read.

The score is read at the last token of the answer's prefix ("The quality of the human face in this
video is"): the position whose output predicts the level word. It is found by that prefix, never by
counting from the end, and in a causal model nothing that follows it can change it. The released
code counts, and lands on the level word itself, which is a label.
"""

from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from lmme3dhf.data.samples import DataError

VIDEO_PAD = "<|video_pad|>"
IGNORED = -100  # label of a token that is not learnt
VIDEO_TYPE = 2  # mm_token_type_ids: text 0, image 1, video 2


@dataclass(frozen=True)
class Encoded:
    """One dialogue as tokens.

    Attributes:
        input_ids: The tokens, the video placeholder repeated once a visual token.
        labels: The same with `IGNORED` wherever nothing is learnt.
        mm_token_type_ids: 2 at the video placeholders, 0 elsewhere.
        read_index: Index of the answer prefix's last token; -1 without a prefix.
    """

    input_ids: list[int]
    labels: list[int]
    mm_token_type_ids: list[int]
    read_index: int


class DialogueEncoder:
    """Encodes dialogues on one video each.

    Args:
        tokenizer: The model's tokenizer, with its chat template.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        self.video_pad = tokenizer.convert_tokens_to_ids(VIDEO_PAD)
        self._end = tokenizer.convert_tokens_to_ids("<|im_end|>")
        self._texts: dict[tuple, tuple[list[int], list[int], int]] = {}

    def encode(
        self,
        prompt: str,
        video_tokens: int,
        *,
        reply: str | None = None,
        prefix: str | None = None,
        video_first: bool = True,
    ) -> Encoded:
        """Encodes a question and what the assistant says.

        Args:
            prompt: The user's text.
            video_tokens: Visual tokens of the clip.
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
        if key not in self._texts:
            self._texts[key] = self._encode_text(*key)
        ids, labels, read_index = self._texts[key]
        at = ids.index(self.video_pad)
        grow = video_tokens - 1
        return Encoded(
            input_ids=ids[:at] + [self.video_pad] * video_tokens + ids[at + 1 :],
            labels=labels[:at] + [IGNORED] * video_tokens + labels[at + 1 :],
            mm_token_type_ids=[0] * at + [VIDEO_TYPE] * video_tokens + [0] * (len(ids) - at - 1),
            read_index=read_index + grow if read_index >= 0 else -1,
        )

    def _encode_text(
        self, prompt: str, reply: str | None, prefix: str | None, video_first: bool
    ) -> tuple[list[int], list[int], int]:
        media, text = {"type": "video"}, {"type": "text", "text": prompt}
        messages = [{"role": "user", "content": [media, text] if video_first else [text, media]}]
        asked = self.tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True
        )
        ids = self.tokenizer.encode(asked, add_special_tokens=False)
        if ids.count(self.video_pad) != 1:
            raise DataError(
                f"prompt {prompt!r}: a dialogue holds exactly one video placeholder, this one "
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
        return ids + answer, [IGNORED] * start + learnt, read_index


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
