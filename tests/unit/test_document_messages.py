"""Where a document stands among the messages of a chat."""

from __future__ import annotations

import pytest

from snapllm.contexts.prompt import document_messages
from snapllm.conversation import ContentPart, ImageUrl, Message, Role
from snapllm.errors import InvalidRequestError

PICTURE = ContentPart("image_url", image_url=ImageUrl("data:image/png;base64,AAAA"))
USER = Message("user", "Where?")


def texts(message: Message) -> list[str | None]:
    assert isinstance(message.content, list)
    return [part.text for part in message.content]


@pytest.mark.parametrize("role", ["system", "developer"])
def test_a_developers_words_follow_the_document_as_the_systems_do(role: Role) -> None:
    messages = document_messages("The document.", [Message(role, "Be brief."), USER])
    assert messages == [Message("system", "The document.\n\nBe brief."), USER]


@pytest.mark.parametrize("role", ["system", "developer"])
def test_beside_pictures_they_are_part_of_the_users_turn(role: Role) -> None:
    [turn] = document_messages(
        [PICTURE, ContentPart("text", "A house.")], [Message(role, "Be brief."), USER]
    )
    assert turn.role == "user" and texts(turn) == [None, "A house.", "Be brief.", "Where?"]


def test_all_that_comes_first_of_the_system_is_one_turn() -> None:
    first = [Message("system", "Be brief."), Message("developer", "Be kind."), Message("system")]
    [system, user] = document_messages("The document.", [*first, USER])
    assert system == Message("system", "The document.\n\nBe brief.\n\nBe kind.") and user is USER


def test_what_the_system_says_later_stays_where_it_is() -> None:
    later = [USER, Message("system", "Be brief.")]
    assert document_messages("The document.", later) == [Message("system", "The document."), *later]


def test_texts_of_one_message_are_joined_as_in_a_chat_without_a_document() -> None:
    parts = [ContentPart("text", "Be brief."), ContentPart("text", "Be kind.")]
    [system, _] = document_messages("The document.", [Message("system", parts), USER])
    assert system.content == "The document.\n\nBe brief.\nBe kind."


def test_what_the_system_shows_is_shown_after_the_document_or_refused() -> None:
    said = Message("system", [ContentPart("text", "Its logo:"), PICTURE])
    [system, _] = document_messages("The document.", [said, USER])
    assert texts(system) == ["The document.\n\n", "Its logo:", None]
    with pytest.raises(InvalidRequestError) as caught:
        document_messages("The document.", [Message("system", [ContentPart("video")]), USER])
    assert caught.value.param == "messages[0].content[0].type"
