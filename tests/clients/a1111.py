"""A client of AUTOMATIC1111's interface against a server: a1111.py ADDRESS TOKEN."""

import base64
import json
import sys
import threading
import time

import requests
import webuiapi
from PIL import Image

ADDRESS, TOKEN = sys.argv[1:]
SIDE = 64
FEW = {"steps": 4, "cfg_scale": 4.5, "width": SIDE, "height": SIDE}


def connect():
    # Older programs know names and passwords; the token is the password.
    return webuiapi.WebUIApi(baseurl=f"{ADDRESS}/sdapi/v1", username="anyone", password=TOKEN)


api = connect()


def pictures(answer, count=1):
    assert all(base64.b64decode(text, validate=True) for text in answer.json["images"])
    assert len(answer.images) == count and all(image.size == (SIDE, SIDE) for image in answer.images)
    return [image.convert("RGB").tobytes() for image in answer.images]


def fails(status, call):
    try:
        call()
    except RuntimeError as error:
        assert error.args[0] == status and json.loads(error.args[1])["detail"], error.args
        return
    raise AssertionError(f"{status} was expected")


# Lists and settings.
assert {"DPM++ 2M", "Euler", "DDIM"} <= {sampler["name"] for sampler in api.get_samplers()}
(model,) = api.get_sd_models()
assert model["model_name"] == "tiny" and api.get_options()["sd_model_checkpoint"] == model["title"]
api.set_options({"sd_model_checkpoint": model["title"]})
assert api.util_get_current_model() == model["title"]
for get in (api.get_schedulers, api.get_sd_vae, api.get_upscalers, api.get_loras, api.get_prompt_styles, api.get_scripts):
    get()

# Words to pictures.
prompt = 'a "red" heart, on the beach: happy'
answer = api.txt2img(prompt=prompt, negative_prompt="dark, sad", seed=42, **FEW)
pictures(answer)
assert answer.info["seed"] == 42 and answer.info["prompt"] == prompt and answer.info["negative_prompt"] == "dark, sad"
text = answer.images[0].info["parameters"]
assert text == answer.info["infotexts"][0] and text.startswith(f"{prompt}\nNegative prompt: dark, sad\nSteps: 4,"), text
read = api.png_info(answer.images[0])
assert read.info == text and read.parameters["Seed"] == "42"
assert api.png_info(Image.new("RGB", (8, 8))).info == ""
four = api.txt2img(prompt="a heart", seed=100, batch_size=2, n_iter=2, **FEW)
assert len(set(pictures(four, 4))) == 4 and four.info["all_seeds"] == [100, 101, 102, 103]
assert pictures(api.txt2img(prompt="a heart", seed=102, **FEW))[0] == pictures(four, 4)[2]
assert api.txt2img(prompt="a heart", seed=-1, **FEW).info["seed"] >= 0
assert api.txt2img(prompt="a heart", send_images=False, **FEW).images == []
assert api.txt2img(prompt="a heart", sampler_name="DPM++ 2M", scheduler="karras", **FEW).info["sampler_name"] == "DPM++ 2M Karras"

# Pictures as words.
gradient = Image.radial_gradient("L").resize((SIDE, SIDE)).convert("RGB")
pictures(api.img2img(images=[gradient], prompt="in the snow", denoising_strength=0.5, **FEW))
pictures(api.img2img(images=[gradient, gradient.rotate(90)], prompt="a <i> next to a <i>", **FEW))

# Progress, and interrupting one's own.
assert api.get_progress()["state"]["job_count"] == 0
got = {}
long = {**FEW, "steps": 900}
thread = threading.Thread(target=lambda: got.update(answer=connect().txt2img(prompt="long", **long)))
thread.start()
for _ in range(600):
    progress = api.get_progress()
    if progress["state"]["sampling_step"] >= 4:
        break
    time.sleep(0.02)
assert 0 < progress["progress"] < 1 and progress["current_image"], progress["state"]
api.interrupt()
thread.join(30)
pictures(got["answer"])  # What there is.
pictures(api.txt2img(prompt="after", **FEW))

# Failures.
fails(404, lambda: api.txt2img(prompt="x", sampler_name="none", **FEW))
fails(422, lambda: api.img2img(images=[], prompt="x", **FEW))
fails(422, lambda: api.txt2img(prompt="x", **{**FEW, "steps": "many"}))
fails(400, lambda: api.txt2img(prompt="x", enable_hr=True, **FEW))
fails(400, lambda: api.txt2img(prompt="x", **{**FEW, "width": 1000}))
assert requests.get(f"{ADDRESS}/sdapi/v1/options", auth=("anyone", "wrong")).status_code == 401
