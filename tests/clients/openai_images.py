"""The official client of OpenAI's interface against a server: openai_images.py BASE_URL (with /v1)."""

import base64
import io
import sys
import urllib.request

import openai
from openai.types import (
    ImageEditCompletedEvent,
    ImageEditPartialImageEvent,
    ImageGenCompletedEvent,
    ImageGenPartialImageEvent,
)
from PIL import Image

SIDE = 64
# Every answer is held against the client's own types.
client = openai.OpenAI(base_url=sys.argv[1], api_key=sys.argv[2], max_retries=0, _strict_response_validation=True)
few = {"steps": 6}


def png(colour):
    file = io.BytesIO()
    Image.new("RGB", (SIDE, SIDE), colour).save(file, "PNG")
    return file.getvalue()


def picture(data):
    image = Image.open(io.BytesIO(data))
    image.load()
    assert image.format == "PNG", image.format
    return image


def pictures(answer, count=1, size=(SIDE, SIDE)):
    assert answer.created > 1_600_000_000 and answer.size == "x".join(map(str, size)), answer
    made = [picture(base64.b64decode(item.b64_json, validate=True)) for item in answer.data]
    assert len(made) == count and all(image.size == size for image in made)
    return made


def fails(kind, status, param, call):
    try:
        call()
    except kind as error:
        assert error.status_code == status, error.status_code
        assert error.body["message"] and error.type and error.param == param, error.body
        assert error.request_id
        return
    raise AssertionError(f"{kind} was expected")


def generate(**fields):
    extra = {**few, **fields.pop("extra_body", {})}
    return client.images.generate(**{"prompt": "a red mushroom on the beach", "extra_body": extra, **fields})


def edit(**fields):
    return client.images.edit(**{"prompt": "in the snow", "extra_body": few, **fields})


models = list(client.models.list())
assert [model.id for model in models] == ["tiny"], models
assert client.models.retrieve("tiny").id == "tiny"
fails(openai.NotFoundError, 404, None, lambda: client.models.retrieve("none"))

# Generations.
pictures(generate())
pictures(generate(n=None, quality=None, background=None, output_format=None, style=None, user="u", model="tiny"))
one, two = pictures(generate(n=2, extra_body={"seed": 11}), count=2)
assert one.tobytes() != two.tobytes()
(again,) = pictures(generate(extra_body={"seed": 12}))
assert again.tobytes() == two.tobytes(), "the second of two has the next seed"
pictures(generate(size="72x64"), size=(72, 64))
with urllib.request.urlopen(generate(response_format="url").data[0].url) as answer:
    picture(answer.read())

# Edits: one picture, several, and where they stand.
pictures(edit(image=png("red")))
pictures(edit(image=[png("red"), ("b.png", png("blue"), "image/png")], n=2), count=2)
pictures(edit(image=[png("red"), png("blue")], prompt="a <i> next to a <i> in the forest"))


# Streams, with pictures on the way.
def streamed(events, partial, completed, wanted):
    *on_the_way, last = list(events)
    assert isinstance(last, completed) and last.size == f"{SIDE}x{SIDE}" and last.usage.total_tokens == 0
    assert all(isinstance(event, partial) for event in on_the_way) and len(on_the_way) == wanted, on_the_way
    assert [event.partial_image_index for event in on_the_way] == list(range(wanted))
    for event in [*on_the_way, last]:
        assert picture(base64.b64decode(event.b64_json)).size == (SIDE, SIDE)


for wanted in (0, 1, 2):
    events = generate(stream=True, partial_images=wanted, extra_body={"steps": 12})
    streamed(events, ImageGenPartialImageEvent, ImageGenCompletedEvent, wanted)
events = edit(image=png("red"), stream=True, partial_images=1)
streamed(events, ImageEditPartialImageEvent, ImageEditCompletedEvent, 1)
with generate(stream=True, partial_images=3, extra_body={"steps": 900}) as events:
    next(iter(events))
pictures(generate())  # Who hung up keeps nobody waiting.

# Failures.
bad = openai.BadRequestError
fails(bad, 400, "size", lambda: generate(size="large"))
fails(bad, 400, None, lambda: generate(size="4096x4096"))
fails(bad, 400, "n", lambda: generate(n=0))
fails(bad, 400, "quality", lambda: generate(quality="best"))
fails(bad, 400, "partial_images", lambda: generate(stream=True, partial_images=9))
fails(bad, 400, "output_format", lambda: generate(output_format="jpeg"))
fails(bad, 400, None, lambda: generate(extra_body={"prompt": 5}))
fails(bad, 400, "image", lambda: edit(image=[]))
fails(bad, 400, "mask", lambda: edit(image=png("red"), mask=png("white")))
fails(bad, 400, None, lambda: edit(image=b"no picture"))
fails(openai.NotFoundError, 404, None, lambda: generate(model="none"))
stranger = client.with_options(api_key="wrong")
fails(openai.AuthenticationError, 401, None, lambda: stranger.images.generate(prompt="a heart"))
