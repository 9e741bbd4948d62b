"""Runs an agent whose result is a pydantic model."""

import asyncio

from agents import book_reviewer
from dotenv import load_dotenv
from schemas import BookReview

from polos import Polos

load_dotenv()


async def review_book(polos: Polos, title: str) -> BookReview:
    result = await book_reviewer.run(polos, f"Review the book {title!r}.")
    print("schema:", result.result_schema)
    return result.result


async def main():
    async with Polos(log_file="polos.log") as polos:
        review = await review_book(polos, "Emma")
        print(f"{review.title} by {review.author.name}: {review.rating}/10, {review.mood}")
        print("tags:", ", ".join(review.tags) or "none")
        print("reviewer:", review.reviewer.model_dump())
        print(review.model_dump_json(indent=2))
        handle = await book_reviewer.invoke(polos, {"input": "Review 'Persuasion'."})
        while (found := await handle.get(polos))["status"] not in ["completed", "failed"]:
            await asyncio.sleep(0.05)
        print(found["output_schema_name"], type(found["result"].result).__name__)


if __name__ == "__main__":
    asyncio.run(main())
