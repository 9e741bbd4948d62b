"""An agent with structured output, as programs for the original SDK define it."""

from schemas import BookReview

from polos import Agent

book_reviewer = Agent(
    id="book-reviewer",
    provider="openai",
    model="gpt-4o",
    system_prompt="You review books. Fill every field.",
    output_schema=BookReview,
)
