"""The sentences that the requests are made of, by level.

A frame is filled with ``str.format``. What its fields hold:

- ``model``: the model and what it draws from, as a noun ("the SDXL image-to-image pipeline");
- ``facts``: sampler, steps, size and so on as nouns, joined by commas and an "and";
- ``list``: the same as lines of "- Name: value"; ``bar``: with bars between them;
- ``methods``: the methods as nouns, joined; ``method_list``: a line of "- ..." each;
- ``faster`` (L4) or ``latency`` (L5): the target, in words that follow "make it" or "be";
- ``target``: the target as a noun; ``quality``: the allowed loss as a noun;
- ``keep``: a whole sentence about the steps, which may be empty; ``size``: pixels.

A field that begins with a capital letter begins a sentence.
"""

from __future__ import annotations

PLAIN = (
    "Write a complete inference program for {model} with {facts}.",
    "Please give me a script that draws images with {model}, using {facts}.",
    "I need a plain pipeline and nothing else: {model}, {facts}.",
    "{Model} | {bar}",
    "Set up {model} for me.\n{list}",
    "How would I run {model} with {facts}? Answer with the whole program.",
    "{Model}. {Facts}.",
    "Hi! Could you put together a generation script based on {model}? It should use {facts}. "
    "Thanks a lot!",
    "## Goal\nImages from {model}\n\n## Settings\n{list}",
    "We offer {model} to our users. Write the inference code with {facts}, ready to run.",
    "For a figure in a report I have to reproduce {model}: {facts}. Write the program.",
    "Notebook, first cell: load {model}. Second cell: generate with {facts}.",
    "Using diffusers, build {model}. Settings: {facts}.",
    "need code, {model}, {facts}",
    "As a starting point for later work I would like {model} just as published, but with {facts}.",
)
"""L1: a plain pipeline."""

ONE = (
    "Write an inference program for {model} with {facts} and speed it up with {methods}.",
    "Please accelerate {model} using {methods}. Stick to {facts}.",
    "{Model} is too slow for us. Apply {methods}, otherwise {facts}.",
    "{Model} | {bar} | {methods}",
    "Set up {model} for me.\n{list}\n- Acceleration: {methods}",
    "How do I use {methods} in {model}? I run it with {facts}. Answer with the whole program.",
    "{Model} + {methods}. {Facts}.",
    "Hi! Could you add {methods} to a script for {model}? It should use {facts}. Thanks a lot!",
    "## Goal\nFaster images from {model}\n\n## Settings\n{list}\n\n## Method\n{methods}",
    "We offer {model} to our users and pay by the second. Write the inference code with {facts}, "
    "and let {methods} save some of the time.",
    "I read about {methods} and would like to try it on {model}. Use {facts}.",
    "Notebook, first cell: load {model}. Second cell: switch on {methods}. Third cell: generate "
    "with {facts}.",
    "Using diffusers, build {model} and enable {methods}. Settings: {facts}.",
    "need code, {model}, {facts}, with {methods}",
    "Generate with {model}, with {facts}. The only acceleration that I want is {methods}.",
)
"""L2: one acceleration method."""

SEVERAL = (
    "Write an inference program for {model} with {facts} and speed it up with {methods}.",
    "Please accelerate {model} by combining {methods}. Stick to {facts}.",
    "{Model} is too slow for us. Apply {methods} together, otherwise {facts}.",
    "{Model} | {bar} | {methods}",
    "Set up {model} for me.\n{list}\nAcceleration, all at once:\n{method_list}",
    "How do I use {methods} in one pipeline of {model}? I run it with {facts}. Answer with the "
    "whole program.",
    "{Model} + {methods}. {Facts}.",
    "Hi! Could you add {methods} to a script for {model}? They should all be active in the same "
    "run. It should use {facts}. Thanks a lot!",
    "## Goal\nFaster images from {model}\n\n## Settings\n{list}\n\n## Methods\n{method_list}",
    "We offer {model} to our users and pay by the second. Write the inference code with {facts}, "
    "and let {methods} save what they can together.",
    "I read that methods can be stacked. Try it on {model}: {methods}. Use {facts}.",
    "Notebook, first cell: load {model}. Second cell: switch on {methods}. Third cell: generate "
    "with {facts}.",
    "Using diffusers, build {model} and enable {methods}. Settings: {facts}.",
    "need code, {model}, {facts}, with {methods}",
    "Generate with {model}, with {facts}. On top of that use every one of these:\n{method_list}",
    "{Methods}: all of them, please, on {model} with {facts}.",
)
"""L3: several methods in one pipeline."""

FASTER = (
    "Make {model} at {size} {faster}, with {quality}. {keep}",
    "Please speed up {model} ({size}). It has to become {faster}; I accept {quality}. {keep}",
    "{Model} at {size} is too slow for us. Find a program that is {faster}, with {quality}. {keep}",
    "{Model} | {size} | {target} | {quality}. {keep}",
    "Optimise {model}.\n- Size: {size}\n- Speed: {target}\n- Quality: {quality}\n{keep}",
    "Can {model} at {size} be {faster}? There may be {quality}. Answer with the whole program. "
    "{keep}",
    "{Target} wanted for {model} at {size}. {Quality}. {keep}",
    "Hi! Our images come from {model} at {size}. Could you make that {faster}? {Quality} is fine. "
    "{keep} Thanks a lot!",
    "## Goal\n{Target}\n\n## Pipeline\n{Model}, {size}\n\n## Limit\n{Quality}\n\n{keep}",
    "We pay by the second for {model} at {size}. Use whatever acceleration you like so that it is "
    "{faster}. We tolerate {quality}. {keep}",
    "Choose and tune acceleration methods for {model} at {size} until it is {faster}. The limit is "
    "{quality}. {keep}",
    "Notebook wanted: {model}, {size}, and it must run {faster}, with {quality}. {keep}",
    "Using diffusers, build {model} at {size} so that it is {faster}. {keep} Quality: {quality}.",
    "need fast code, {model}, {size}, {target}, {quality}. {keep}",
)
"""L4: a minimum speed-up."""

LATENCY = (
    "Make {model} at {size} {latency} on {device}, with {quality}. {keep}",
    "Please speed up {model} ({size}). On {device} it has to be {latency}; I accept {quality}. "
    "{keep}",
    "{Model} at {size} is too slow for us. Find a program that is {latency} on {device}, with "
    "{quality}. {keep}",
    "{Model} | {size} | {device} | {target} | {quality}. {keep}",
    "Optimise {model}.\n- Size: {size}\n- Device: {device}\n- Time: {target}\n- Quality: {quality}"
    "\n{keep}",
    "Can {model} at {size} be {latency} on {device}? There may be {quality}. Answer with the whole "
    "program. {keep}",
    "{Target} wanted for {model} at {size} on {device}. {Quality}. {keep}",
    "Hi! Our images come from {model} at {size}. Could you make that {latency} on {device}? "
    "{Quality} is fine. {keep} Thanks a lot!",
    "## Goal\n{Target}\n\n## Device\n{device}\n\n## Pipeline\n{Model}, {size}\n\n## Limit\n"
    "{Quality}\n\n{keep}",
    "Our users wait for {model} at {size}. Use whatever acceleration you like so that it is "
    "{latency} on {device}. We tolerate {quality}. {keep}",
    "Choose and tune acceleration methods for {model} at {size} until it is {latency} on {device}. "
    "The limit is {quality}. {keep}",
    "Notebook wanted: {model}, {size}, on {device}, and it must be {latency}, with {quality}. "
    "{keep}",
    "Using diffusers, build {model} at {size} so that it is {latency} on {device}. {keep} Quality: "
    "{quality}.",
    "need fast code, {model}, {size}, {device}, {target}, {quality}. {keep}",
)
"""L5: a maximum latency on a device."""

FRAMES = {1: PLAIN, 2: ONE, 3: SEVERAL, 4: FASTER, 5: LATENCY}
