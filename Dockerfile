# For GPU users: docker build -t vgbench . && docker run --gpus all --shm-size 8g -v $PWD/data:/data -v $PWD/runs:/work/runs vgbench \
#     run method=alvg dataset=refcoco data_root=/data trainer=gpu
# The wheels of torch bring CUDA with them; the driver is the host's.
FROM python:3.12-slim
RUN apt-get update && apt-get install -y --no-install-recommends gcc g++ git && rm -rf /var/lib/apt/lists/*
COPY . /src
RUN pip install --no-cache-dir "/src[tensorboard]" && rm -rf /src
RUN useradd --create-home grounding && mkdir -p /work/runs && chown -R grounding /work
USER grounding
WORKDIR /work
ENTRYPOINT ["vgbench"]
CMD ["--help"]
