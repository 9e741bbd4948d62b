"""What the agents answer with, as programs for the original SDK define it."""

from typing import Literal

from pydantic import BaseModel, Field


class Person(BaseModel):
    name: str = Field(description="First and last name")
    age: int | None = Field(default=None, ge=0, le=150)


class BookReview(BaseModel):
    """A review of a book."""

    title: str = Field(description="The title of the book")
    author: Person
    reviewer: Person
    rating: int = Field(ge=1, le=10, description="From 1 to 10")
    mood: Literal["happy", "sad"]
    tags: list[str] = Field(default_factory=list)
    summary: str
